"""Features on disk, one folder per manifest and settings: whole or absent, whoever builds or dies meanwhile.

`cache_dir/KEY/` holds `features.i16` (all frames one after another; int16 multiples of 1 / STEPS, which is exact) and
`index.json` (where each utterance lies, what was wrong with the others, checksums). KEY hashes the manifest, the
feature settings and the sizes and times of the audio files, so a change of any of them is another folder.
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
from qstudy.data.check import check_manifest, require_sound
from qstudy.data.features import STEPS, FeatureSettings, Filterbank, extract
from qstudy.data.manifest import Utterance
from qstudy.errors import UserError
from qstudy.files import content_hash, read_json, write_json

_VERSION = 1  # raise it when features or files change their meaning
_AHEAD = 64  # utterances whose features wait in memory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Index:
    """What is in a folder."""

    lines: list[int]
    """Line of the manifest of each sound utterance."""
    lengths: list[int]
    """Frames of each sound utterance."""
    problems: list[tuple[int, str]]
    """Line and reason of each broken utterance."""
    checksum: int
    """CRC-32 of all features."""


def open_store(
    cache_dir: Path, manifest: Path, utterances: Sequence[Utterance], settings: FeatureSettings, skip_broken: bool
) -> tuple[Index, np.ndarray]:
    """Open the features of a manifest; check it and compute them if that has not been done.

    Args:
        cache_dir: folder of all stores; several processes may use it at once.
        manifest: JSON lines.
        utterances: its well-formed lines.
        settings: of the filterbank.
        skip_broken: build from the sound utterances even if others are broken.

    Returns:
        The index, and (all frames, bins) int16 features in steps of 1 / STEPS, memory-mapped.

    Raises:
        UserError: broken utterances, no sound one, or a folder that cannot be written.
    """
    stamps = [_stamp(utterance.audio) for utterance in utterances]
    key = content_hash(_VERSION, asdict(settings), manifest.read_text(encoding="utf-8"), stamps)
    folder = cache_dir / key
    index = _load(folder, settings) or _make(folder, manifest, settings, skip_broken)
    return index, np.asarray(_features(folder)).reshape(-1, settings.bins)  # slices of arrays are faster than of memmap


def line_number(source: str) -> int:
    """17, of `path/train.jsonl:17`."""
    return int(source.rpartition(":")[2])


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None  # the check reports it
    return status.st_size, status.st_mtime_ns


def _features(folder: Path) -> np.ndarray:
    return np.memmap(folder / "features.i16", np.int16, "r")


def _load(folder: Path, settings: FeatureSettings) -> Index | None:
    """The index of a whole and undamaged store, else None."""
    if not folder.exists():
        return None
    try:
        entry = read_json(folder / "index.json")
        index, features = Index(**entry["index"]), _features(folder)
        if entry["hash"] != content_hash(entry["index"]) or index.checksum != zlib.crc32(features.data):
            raise ValueError("the checksum differs")
        if len(features) != sum(index.lengths) * settings.bins:
            raise ValueError("the size differs")
    except (UserError, OSError, TypeError, ValueError, KeyError) as error:
        log.warning("The feature cache %s is damaged (%s); it is built again.", folder, error)
        return None
    return index


def _make(folder: Path, manifest: Path, settings: FeatureSettings, skip_broken: bool) -> Index:
    """Check the manifest and build its store, unless another process just did."""
    with _locked(folder.with_name(f"{folder.name}.lock")):
        if index := _load(folder, settings):
            return index
        utterances, problems = check_manifest(manifest)
        if not skip_broken or not utterances:
            require_sound(manifest, problems)
        with _fresh(folder) as temporary:
            lengths, checksum = _write(temporary / "features.i16", utterances, settings)
            lines = [line_number(utterance.source) for utterance in utterances]
            broken = [(line_number(problem.source), problem.message) for problem in problems]
            index = Index(lines, lengths, broken, checksum)
            write_json(temporary / "index.json", {"index": asdict(index), "hash": content_hash(asdict(index))})
    return index


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; the system frees it when its holder dies."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.warning("Waiting for another process, which computes the same features.")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Cannot write the feature cache {path.parent}: {reason}; choose another folder.") from error


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
    lengths, checksum = [], 0
    with path.open("wb") as file, tqdm(total=len(utterances), desc="features", unit="utt", disable=None) as progress:
        for frames in _computed(utterances, settings):
            lengths.append(len(frames))
            checksum = zlib.crc32(frames.data, checksum)
            file.write(frames.data)
            progress.update()
        file.flush()
        os.fsync(file.fileno())  # whole on disk before the folder gets its name
    return lengths, checksum


def _computed(utterances: Sequence[Utterance], settings: FeatureSettings) -> Iterator[np.ndarray]:
    """Yield (frames, bins) int16 features of all utterances in order, computed by as many threads as torch may use.

    Threads, not processes: decoding, FFT and sums run outside the interpreter's lock, and nothing has to be started.
    """
    filterbank = Filterbank(settings)

    def compute(utterance: Utterance) -> np.ndarray:
        samples = torch.from_numpy(read_audio(utterance.audio, settings.sample_rate))
        return (extract(filterbank, samples) * STEPS).to(torch.int16).numpy()

    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for start in range(0, len(utterances), _AHEAD):
                yield from pool.map(compute, utterances[start : start + _AHEAD])
    finally:
        torch.set_num_threads(threads)  # the initializer also sets what later threads get
