"""The features of a manifest on disk: built once, opened in milliseconds, memory-mapped.

`cache_dir/KEY/` holds `features.i16` (all frames one after another; `int16` multiples of 1 / STEPS, which is exact) and
`index.json` (where each utterance lies, what was wrong with the others, a checksum). KEY hashes the manifest, the
feature settings and the sizes and times of the audio files, so a change of any of them is another cache.
"""

import fcntl
import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from qstudy.data.audio import read_audio
from qstudy.data.check import Problem, check_manifest
from qstudy.data.features import STEPS, FeatureSettings, Filterbank, extract
from qstudy.data.manifest import Utterance, manifest_lines, parse_line
from qstudy.data.tokenizer import Tokenizer
from qstudy.errors import UserError
from qstudy.files import content_hash, read_json, write_json

_VERSION = 1  # raise it when features or files change their meaning
_SHOWN = 10  # problems in an error message
_AHEAD = 64  # utterances that the threads compute before the first of them is written
_LEAST_STD = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Index:
    """What `index.json` says."""

    lines: list[int]
    """Line of the manifest of each utterance."""
    lengths: list[int]
    """Frames of each utterance."""
    problems: list[tuple[int, str]]
    """Line and reason of each broken utterance."""
    checksum: int
    """CRC-32 of the features."""


class FeatureSet:
    """The utterances of a manifest with their features and labels."""

    def __init__(self, utterances: list[Utterance], labels: list[list[int]], starts: np.ndarray, lengths: np.ndarray,
                 features: np.ndarray, hop_s: float) -> None:  # fmt: skip
        """Put the parts together; `open` is for everyone else.

        Args:
            utterances: one per item.
            labels: of each utterance's text.
            starts: (items,) int64, the first frame of each utterance among `features`.
            lengths: (items,) int64, frames of each utterance.
            features: (all frames, bins) int16 in steps of 1 / STEPS.
            hop_s: seconds between frames.
        """
        self.utterances = utterances
        self.texts = [utterance.text for utterance in utterances]
        self.labels = labels
        self.lengths = lengths
        self.bins = features.shape[1]
        self._starts, self._features, self._hop_s = starts, features, hop_s

    @classmethod
    def open(cls, manifest: Path, settings: FeatureSettings, tokenizer: Tokenizer, cache_dir: Path,
             skip_broken: bool = False) -> "FeatureSet":  # fmt: skip
        """Open the features of a manifest; check the manifest and compute them if that has not been done.

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
        folder = cache_dir / _key(manifest, parsed, settings)
        index = _load(folder, settings) or _make(folder, manifest, settings, skip_broken)
        problems = [Problem(f"{manifest}:{line}", message) for line, message in index.problems]
        starts = np.concatenate([[0], np.cumsum(index.lengths)])
        utterances, labels, kept = [], [], []
        for item, line in enumerate(index.lines):
            try:
                labels.append(tokenizer.encode(parsed[line].text))
                utterances.append(parsed[line])
                kept.append(item)
            except UserError as error:
                problems.append(Problem(parsed[line].source, str(error)))
        _report(manifest, problems, len(utterances), skip_broken)
        lengths = np.array(index.lengths, dtype=np.int64)[kept]
        features = np.asarray(np.memmap(folder / "features.i16", np.int16, "r")).reshape(-1, settings.bins)
        return cls(utterances, labels, starts[kept], lengths, features, settings.hop / settings.sample_rate)

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def duration_s(self) -> float:
        """Seconds of all utterances, tails included."""
        return float(self.lengths.sum()) * self._hop_s

    def stored(self, index: int) -> np.ndarray:
        """(frames, bins) int16 features of one utterance, in steps of 1 / STEPS."""
        start = self._starts[index]
        return self._features[start : start + self.lengths[index]]

    def frames(self, index: int) -> np.ndarray:
        """(frames, bins) float32 features of one utterance, tail included: exactly `extract` of its audio."""
        return np.multiply(self.stored(index), np.float32(1 / STEPS), dtype=np.float32)


def mean_std(features: FeatureSet) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every bin over all frames: (bins,) float32 each; the sums are exact.

    The deviation is at least 2 (9 dB; speech has 3 to 4), so that bins which are always silent, in audio that was once
    sampled at 8 kHz, are not amplified.
    """
    total = np.zeros(features.bins, dtype=np.int64)
    squares = np.zeros(features.bins, dtype=np.int64)
    for index in tqdm(range(len(features)), desc="statistics", unit="utt", disable=None, leave=False, delay=2):
        stored = features.stored(index).astype(np.int64)
        total += stored.sum(0)
        squares += np.einsum("td,td->d", stored, stored)
    count = int(features.lengths.sum())
    mean = total / count
    std = np.sqrt(squares / count - mean**2)
    return (mean / STEPS).astype(np.float32), np.maximum(std / STEPS, _LEAST_STD).astype(np.float32)


def _parse(manifest: Path) -> dict[int, Utterance]:
    """Every well-formed line; `check_manifest` reports the others."""
    parsed = {}
    for source, line in manifest_lines(manifest):
        try:
            parsed[_line(source)] = parse_line(line, source, manifest.parent)
        except UserError:
            continue  # the key hashes the whole manifest, and the check names this line
    return parsed


def _line(source: str) -> int:
    return int(source.rpartition(":")[2])


def _key(manifest: Path, parsed: dict[int, Utterance], settings: FeatureSettings) -> str:
    files = [_stamp(utterance.audio) for utterance in parsed.values()]
    return content_hash(_VERSION, asdict(settings), manifest.read_text(encoding="utf-8"), files)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None  # the check reports it
    return status.st_size, status.st_mtime_ns


def _load(folder: Path, settings: FeatureSettings) -> Index | None:
    """The index of a whole and undamaged cache, else None."""
    if not folder.exists():
        return None
    try:
        entry = read_json(folder / "index.json")
        index = Index(**entry["index"])
        features = np.memmap(folder / "features.i16", np.int16, "r")
        sound = entry["hash"] == content_hash(entry["index"]) and index.checksum == zlib.crc32(features.data)
        sound = sound and len(features) == sum(index.lengths) * settings.bins
    except (UserError, OSError, TypeError, ValueError, KeyError) as error:
        log.info("%s: %r", folder, error)
        sound = False
    if not sound:
        log.warning("The feature cache %s is damaged; it is built again.", folder)
    return index if sound else None


def _make(folder: Path, manifest: Path, settings: FeatureSettings, skip_broken: bool) -> Index:
    """Check the manifest and build its cache, unless another process just did."""
    with _locked(folder.with_name(f"{folder.name}.lock")):
        if index := _load(folder, settings):
            return index
        utterances, problems = check_manifest(manifest)
        _report(manifest, problems, len(utterances), skip_broken)
        with _fresh(folder) as temporary:
            lengths, checksum = _write(temporary / "features.i16", utterances, settings)
            lines = [_line(utterance.source) for utterance in utterances]
            broken = [(_line(problem.source), problem.message) for problem in problems]
            index = Index(lines, lengths, broken, checksum)
            write_json(temporary / "index.json", {"index": asdict(index), "hash": content_hash(asdict(index))})
    return index


def _report(manifest: Path, problems: Sequence[Problem], sound: int, skip_broken: bool) -> None:
    if not problems and sound:
        return
    shown = [f"  {problem.source}: {problem.message}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        shown.append(f"  and {len(problems) - _SHOWN} more")
    listed = "\n".join(shown)
    if not sound:
        raise UserError(f"{manifest} has no sound utterance:\n{listed}")
    if not skip_broken:
        raise UserError(f"{manifest} has {len(problems)} broken utterances; mend them or set skip_broken:\n{listed}")
    log.warning("%s: %d broken utterances are left out:\n%s", manifest, len(problems), listed)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; the system frees it when its holder dies."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.warning("Waiting for another process, which is computing the same features.")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise UserError(f"Cannot write the feature cache {path.parent}: {error.strerror or error}.") from error


@contextmanager
def _fresh(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` when all went well; the caller holds the lock."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # a killed builder's
    temporary.mkdir()
    try:
        yield temporary
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(path: Path, utterances: Sequence[Utterance], settings: FeatureSettings) -> tuple[list[int], int]:
    """Write the features of all utterances; returns their lengths in frames and the checksum of the file."""
    filterbank = Filterbank(settings)
    lengths, checksum = [], 0
    with path.open("wb") as file, tqdm(total=len(utterances), desc="features", unit="utt", disable=None) as progress:
        for frames in _computed(filterbank, utterances):
            lengths.append(len(frames))
            checksum = zlib.crc32(frames.data, checksum)
            file.write(frames.data)
            progress.update()
        file.flush()
        os.fsync(file.fileno())  # whole on disk before it is renamed into place
    return lengths, checksum


def _computed(filterbank: Filterbank, utterances: Sequence[Utterance]) -> Iterator[np.ndarray]:
    """Yield the int16 features of all utterances in order, computed by one thread per core.

    Threads, not processes: decoding, FFT and sums run outside the interpreter's lock, and nothing has to be started.
    """

    def compute(utterance: Utterance) -> np.ndarray:
        samples = torch.from_numpy(read_audio(utterance.audio, filterbank.settings.sample_rate))
        return (extract(filterbank, samples) * STEPS).to(torch.int16).numpy()

    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for start in range(0, len(utterances), _AHEAD):
                yield from pool.map(compute, utterances[start : start + _AHEAD])
    finally:
        torch.set_num_threads(threads)
