"""A manifest as a set of features and labels, ready for training."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from qstudy.data.build import build
from qstudy.data.check import require_sound, still_broken, text_problems
from qstudy.data.columns import Integers, Table, Texts
from qstudy.data.features import PER_UNIT, FeatureSettings
from qstudy.data.labels import check_labels, labels_path, write_labels
from qstudy.data.manifest import Line, manifest_lines
from qstudy.data.store import Store, lock_path, read_problems, store_key
from qstudy.data.tokenizer import Tokenizer
from qstudy.errors import UserError
from qstudy.locks import locked

_LEAST_STD = 2.0

log = logging.getLogger(__name__)


class FeatureSet:
    """The utterances of a manifest with their features and labels.

    Everything lies in files that are mapped: processes share the memory, and a pickled set is two paths.
    """

    def __init__(self, store: Store, labels: Table, settings: FeatureSettings) -> None:
        """Put the parts together; `open` is what callers want.

        Args:
            store: features and texts.
            labels: what `write_labels` made of the texts.
            settings: how the features were made.
        """
        items = labels["items"]
        self.settings = settings
        self.texts: Sequence[str] = Texts(store.index, "texts", items)
        self.labels: Sequence[list[int]] = Integers(labels, "labels")
        self.lengths: np.ndarray = store.index["lengths"][items]  # (items,) int64, frames
        self.lines: np.ndarray = store.index["lines"][items]  # (items,) int64, of the manifest, from 1 on
        self.sums: np.ndarray = labels["sums"]  # (bins,) int64, of all stored features
        self.squares: np.ndarray = labels["squares"]
        self._starts = (store.index["lengths"].cumsum() - store.index["lengths"])[items]
        self._store, self._labels = store, labels

    def __reduce__(self) -> tuple[type["FeatureSet"], tuple[Store, Table, FeatureSettings]]:
        return FeatureSet, (self._store, self._labels, self.settings)

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
            cache_dir: folder of all caches; several processes may use it at once: one computes, the others wait.
            skip_broken: leave broken utterances out, with a warning, instead of raising.

        Raises:
            UserError: broken utterances (the first ten are listed with file and line; those that can be told without
                reading audio come first), no sound one, no manifest, or a cache folder that cannot be written.
        """
        lines = manifest_lines(manifest)
        folder = cache_dir / store_key(manifest, lines, settings)

        def stored() -> Store | None:
            """The store, unless it would be complained about for what has passed."""
            store = _stored(folder, settings)
            if store is None or skip_broken or still_broken(manifest, lines, {each.line for each in store.problems}):
                return store
            log.warning("Broken lines of %s were mended; its features are computed again.", manifest)
            return None

        store = stored()
        if store is None:
            with _locked(folder):  # another process may have built it meanwhile
                store = stored() or _build(folder, manifest, lines, settings, tokenizer, skip_broken)
        labels = _labels(store, tokenizer)
        problems = [*store.problems, *read_problems(labels)]
        if not skip_broken or not len(labels["items"]):
            require_sound(manifest, problems)
        for problem in problems:
            log.warning("Left out: %s:%d: %s", manifest, problem.line, problem.message)
        return cls(store, labels, settings)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def duration_s(self) -> float:
        """Seconds of all utterances, tails included."""
        return float(self.lengths.sum()) * self.settings.hop / self.settings.sample_rate

    def stored(self, item: int) -> np.ndarray:
        """(frames, bins) int16 features of one utterance, in steps of 1 / PER_UNIT."""
        start = self._starts[item]
        return self._store.frames[start : start + self.lengths[item]]

    def frames(self, item: int) -> np.ndarray:
        """(frames, bins) float32 features of one utterance: exactly what `extract` makes of its audio."""
        return np.multiply(self.stored(item), np.float32(1 / PER_UNIT), dtype=np.float32)


def mean_std(features: FeatureSet) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every bin over all frames: (bins,) float32 each; the sums are exact.

    The deviation is at least 2 (9 dB; speech has 3 to 4), so that bins which are always silent, in audio that was once
    sampled at 8 kHz, are not amplified.
    """
    count = int(features.lengths.sum())
    mean = features.sums / count
    std = np.sqrt(np.maximum(features.squares / count - mean**2, 0))
    return (mean / PER_UNIT).astype(np.float32), np.maximum(std / PER_UNIT, _LEAST_STD).astype(np.float32)


def _stored(folder: Path, settings: FeatureSettings) -> Store | None:
    """A whole store, else None."""
    if not folder.exists():
        return None
    try:
        return Store(folder, settings.bins)
    except UserError as error:
        log.warning("The feature cache %s It is built again.", error)
        return None


def _build(
    folder: Path, manifest: Path, lines: Sequence[Line], settings: FeatureSettings, tokenizer: Tokenizer, skip: bool
) -> Store:
    """Build a store; the caller holds its lock."""
    if not skip:  # at once, not after hours
        require_sound(manifest, text_problems(manifest, lines, tokenizer))
    build(folder, manifest, lines, settings, skip)
    return Store(folder, settings.bins)


def _labels(store: Store, tokenizer: Tokenizer) -> Table:
    path = labels_path(store.folder, tokenizer)
    if (table := _whole_labels(path, store, tokenizer)) is None:
        with _locked(store.folder):
            if (table := _whole_labels(path, store, tokenizer)) is None:  # somebody else may have been here
                write_labels(path, store, tokenizer)
                table = Table(path)
    return table


def _whole_labels(path: Path, store: Store, tokenizer: Tokenizer) -> Table | None:
    if not path.exists():
        return None
    try:
        table = Table(path)
        check_labels(table, store, tokenizer)
        return table
    except UserError as error:
        log.warning("%s It is written again.", error)
        return None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Build alone; the system lets go when a builder dies."""
    try:
        with locked(lock_path(folder), "Waiting for another process, which computes the same features."):
            yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"Cannot write the feature cache {folder.parent}: {reason}; free space or choose another folder."
        ) from error
