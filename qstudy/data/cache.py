"""A manifest as a set of features and labels, ready for training."""

import logging
from pathlib import Path

import numpy as np
from tqdm import tqdm

from qstudy.data.check import Problem, require_sound
from qstudy.data.features import STEPS, FeatureSettings
from qstudy.data.manifest import Utterance, manifest_lines, parse_line
from qstudy.data.store import line_number, open_store
from qstudy.data.tokenizer import Tokenizer
from qstudy.errors import UserError

_LEAST_STD = 2.0

log = logging.getLogger(__name__)


class FeatureSet:
    """The utterances of a manifest with their features and labels."""

    def __init__(
        self,
        utterances: list[Utterance],
        labels: list[list[int]],
        starts: np.ndarray,
        lengths: np.ndarray,
        features: np.ndarray,
        settings: FeatureSettings,
    ) -> None:
        """Put the parts together; `open` is what callers want.

        Args:
            utterances: one per item.
            labels: of each utterance's text.
            starts: (items,) int64, the first frame of each utterance among `features`.
            lengths: (items,) int64, frames of each utterance.
            features: (all frames, bins) int16 in steps of 1 / STEPS.
            settings: how the features were made.
        """
        self.utterances = utterances
        self.texts = [utterance.text for utterance in utterances]
        self.labels = labels
        self.lengths = lengths
        self.settings = settings
        self._starts, self._features = starts, features

    @classmethod
    def open(
        cls,
        manifest: Path,
        settings: FeatureSettings,
        tokenizer: Tokenizer,
        cache_dir: Path,
        skip_broken: bool = False,
    ) -> "FeatureSet":
        """Open a manifest; check it and compute its features if that has not been done, else in milliseconds.

        Args:
            manifest: JSON lines (`qstudy.data.manifest`).
            settings: of the filterbank.
            tokenizer: makes the labels.
            cache_dir: folder of all caches; several processes may use it at once.
            skip_broken: leave broken utterances out, with a warning, instead of raising.

        Raises:
            UserError: broken utterances (the first ten are listed with file and line), no sound one, no manifest, or a
                cache folder that cannot be written.
        """
        parsed = _parse(manifest)
        index, features = open_store(cache_dir, manifest, list(parsed.values()), settings, skip_broken)
        problems = [Problem(f"{manifest}:{line}", message) for line, message in index.problems]
        labels: dict[int, list[int]] = {}
        for item, line in enumerate(index.lines):
            try:
                labels[item] = tokenizer.encode(parsed[line].text)
            except UserError as error:
                problems.append(Problem(parsed[line].source, str(error)))
        if not skip_broken or not labels:
            require_sound(manifest, problems)
        for problem in problems:
            log.warning("Left out: %s", problem)
        kept = np.array(list(labels))
        starts = np.cumsum([0, *index.lengths])[kept]
        lengths = np.array(index.lengths)[kept]
        utterances = [parsed[index.lines[item]] for item in labels]
        return cls(utterances, list(labels.values()), starts, lengths, features, settings)

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def duration_s(self) -> float:
        """Seconds of all utterances, tails included."""
        return float(self.lengths.sum()) * self.settings.hop / self.settings.sample_rate

    def stored(self, item: int) -> np.ndarray:
        """(frames, bins) int16 features of one utterance, in steps of 1 / STEPS."""
        start = self._starts[item]
        return self._features[start : start + self.lengths[item]]

    def frames(self, item: int) -> np.ndarray:
        """(frames, bins) float32 features of one utterance: exactly what `extract` makes of its audio."""
        return np.multiply(self.stored(item), np.float32(1 / STEPS), dtype=np.float32)


def mean_std(features: FeatureSet) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every bin over all frames: (bins,) float32 each; the sums are exact.

    The deviation is at least 2 (9 dB; speech has 3 to 4), so that bins which are always silent, in audio that was once
    sampled at 8 kHz, are not amplified.
    """
    total = np.zeros(features.settings.bins, dtype=np.int64)
    squares = np.zeros(features.settings.bins, dtype=np.int64)
    for item in tqdm(range(len(features)), desc="statistics", unit="utt", disable=None, leave=False, delay=2):
        stored = features.stored(item).astype(np.int64)
        total += stored.sum(0)
        squares += np.einsum("td,td->d", stored, stored)
    count = int(features.lengths.sum())
    mean = total / count
    std = np.sqrt(squares / count - mean**2)
    return (mean / STEPS).astype(np.float32), np.maximum(std / STEPS, _LEAST_STD).astype(np.float32)


def _parse(manifest: Path) -> dict[int, Utterance]:
    """Every well-formed line by its number; the check names the others."""
    parsed = {}
    for source, line in manifest_lines(manifest):
        try:
            parsed[line_number(source)] = parse_line(line, source, manifest.parent)
        except UserError:
            continue  # `open_store` hashes the whole manifest, so this line cannot hide behind an old check
    return parsed
