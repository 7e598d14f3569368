"""Rows: features made for the first time, and a long manifest opened again."""

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import numpy as np
import soundfile
import torch

from benchmarks.row import Row
from benchmarks.timing import interleaved
from qstudy.data.feature_set import FeatureSet
from qstudy.data.features import FeatureSettings
from qstudy.data.tokenizer import CharTokenizer

RATE = 16000
SETTINGS = FeatureSettings(tail_ms=0)  # as the peer, which adds none
ROUNDS = 3
KALDI = "kaldi-native-fbank, lists in and frames out"
NO_KALDI = "" if find_spec("kaldi_native_fbank") else "not installed: pip install 'qstudy[bench]'"


def rows() -> Iterable[Row]:
    """The first row is bound by decoding and the FFT, the second by the system's answers about files."""
    with tempfile.TemporaryDirectory() as folder:
        few = corpus(Path(folder) / "few", 100, seconds=5.0)
        caches = (Path(folder) / "caches" / str(number) for number in count())
        sides: dict[str, Callable[[], object]] = {
            "ours": lambda: opened(few, next(caches)),
            "floor": partial(threaded, decode, few),
        }
        sides |= {} if NO_KALDI else {"peer": partial(threaded, kaldi, few)}
        yield row("features of 100 x 5 s, first time", sides, KALDI, "decoding", NO_KALDI)
        many = corpus(Path(folder) / "many", 10_000, seconds=0.1)
        opened(many, Path(folder) / "cache")  # the first time, which does not count here
        sides = {
            "ours": lambda: opened(many, Path(folder) / "cache"),
            "peer": lambda: [soundfile.info(path) for path in paths(many)],
            "floor": lambda: [os.stat(path) for path in paths(many)],  # noqa: PTH116
        }
        yield row("10,000 utterances opened again", sides, "soundfile headers", "manifest, one stat per file")


def row(what: str, sides: dict[str, Callable[[], object]], peer: str, floor: str, skipped: str = "") -> Row:
    """Time the sides in turn."""
    times = interleaved(sides, ROUNDS)
    return Row(what, "ms", peer, times["ours"], times.get("peer"), floor, times["floor"], skipped)


def corpus(folder: Path, utterances: int, seconds: float) -> Path:
    """A manifest of noise."""
    folder.mkdir()
    noise = (np.random.default_rng(0).standard_normal(int(seconds * RATE)) * 0.1).astype(np.float32)
    lines = []
    for number in range(utterances):
        soundfile.write(folder / f"{number}.wav", noise, RATE)
        lines.append(json.dumps({"audio_filepath": f"{number}.wav", "duration": seconds, "text": "turn on the light"}))
    (folder / "all.jsonl").write_text("\n".join(lines))
    return folder / "all.jsonl"


def opened(manifest: Path, cache: Path) -> FeatureSet:
    """What every run does."""
    return FeatureSet.open(manifest, SETTINGS, CharTokenizer(), cache)


def paths(manifest: Path) -> list[str]:
    """The sound files, by the least that must be read to know them."""
    lines = manifest.read_text().split("\n")
    return [os.path.join(manifest.parent, json.loads(line)["audio_filepath"]) for line in lines]  # noqa: PTH118


def threaded(function: Callable[[str], object], manifest: Path) -> None:
    """Call for every sound file, on as many threads as torch may use."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(function, paths(manifest)))


def decode(path: str) -> np.ndarray:
    """Samples."""
    samples: np.ndarray = soundfile.read(path, dtype="float32")[0]
    return samples


def kaldi(path: str) -> np.ndarray:
    """(frames, bins) float32, as `Filterbank` computes them."""
    import kaldi_native_fbank

    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = RATE
    options.frame_opts.dither = 0
    options.frame_opts.window_type = "hann"
    options.frame_opts.remove_dc_offset = False
    options.mel_opts.is_librosa = True
    options.mel_opts.num_bins = SETTINGS.bins
    options.mel_opts.low_freq, options.mel_opts.high_freq = SETTINGS.low_hz, SETTINGS.high_hz
    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(RATE, decode(path).tolist())
    computer.input_finished()
    return np.stack([computer.get_frame(frame) for frame in range(computer.num_frames_ready)])
