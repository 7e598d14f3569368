"""Sound files: read as mono float32 at any sample rate, resampled, written as FLAC.

Read are the formats of which can be told whether a file is whole: WAV, AIFF, FLAC, OGG (Vorbis, Opus) and MP3.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from qstudy.data.container import is_cut_short, mp3_samples
from qstudy.errors import UserError

FORMATS = ("WAV", "WAVEX", "RF64", "AIFF", "FLAC", "OGG", "MP3")
RATES = (1000, 384_000)
"""Lowest and highest sample rate that a file may have, Hz."""
LONGEST = 2**28
"""Samples of a file at most, as it is and after resampling: 4.7 hours at 16 kHz, 1 GiB of memory."""
LOUDEST = 16.0
"""Full scale is 1; a float WAV may exceed it by this factor. More are no samples, or samples in units of their own."""
_UNTOLD = 2**62  # more samples than any header can count: libsndfile's way to say that this one has no number
_GUESSED = 2 * 1152  # samples that may be missing of an MP3 whose length is guessed: an encoder adds as much silence
_BLOCK = 2**20  # samples read at a time: what a header promises is not allocated

_MARGIN = 512  # zeros (samples) after the signal, so that its end does not wrap around to its beginning
_FADE = 0.05  # the top share of the common band that fades out: the resampling filter stays short (a few ms)


def read_audio(path: Path, sample_rate: int = 16000) -> np.ndarray:
    """Read a sound file as mono.

    Args:
        path: one of `FORMATS`; channels are averaged.
        sample_rate: wanted sample rate, Hz.

    Returns:
        Samples, float32 (N,), full scale is [-1, 1].

    Raises:
        UserError: the file is missing, broken, cut short, empty, too long, of another format or an absurd sample rate,
            or holds values that are not numbers or far beyond full scale.
    """
    samples, rate = read_native(path)
    require_length(path, samples, rate, sample_rate)
    return resample(samples, rate, sample_rate)


def require_length(path: Path, samples: np.ndarray, rate: int, sample_rate: int) -> None:
    """Raise UserError if samples (N,) of a file at `rate` would be more than `LONGEST` at `sample_rate`."""
    if len(samples) * sample_rate > LONGEST * rate:
        hours = LONGEST / sample_rate / 3600
        raise UserError(f"The audio file {path} is too long; cut it into parts of at most {hours:.1f} hours.")


def read_native(path: Path) -> tuple[np.ndarray, int]:
    """Read a sound file as mono at its own rate: samples, float32 (N,), and the rate, Hz. Raises as `read_audio`."""
    with _open(path) as (file, expected):
        rate = int(file.samplerate)
        samples = _mono(file)
    if not len(samples):
        raise UserError(f"The audio file {path} holds no samples.")
    if len(samples) < expected:
        raise UserError(f"The audio file {path} is cut short: {len(samples)} of {expected} samples.")
    if not np.isfinite(samples).all():
        raise UserError(f"The audio file {path} holds values that are not numbers.")
    if (loudest := np.abs(samples).max()) > LOUDEST:
        raise UserError(f"The audio file {path} holds values up to {loudest:g}; scale its samples to -1 .. 1.")
    return samples, rate


def _mono(file: soundfile.SoundFile) -> np.ndarray:
    """All samples, (N,) float32, read block by block."""
    size = max(_BLOCK // file.channels, 1)
    blocks = [np.zeros(0, np.float32)]
    while len(block := file.read(size, dtype="float32", always_2d=True)):
        blocks.append(block.mean(axis=1))
    return np.concatenate(blocks)


def duration(path: Path) -> float:
    """Seconds, without decoding.

    Raises:
        UserError: the file is missing, has no readable header, or is refused for what that says (`read_audio`).
    """
    with _open(path) as (file, frames):
        return float(frames / file.samplerate)


def require_file(path: Path) -> None:
    """Raise UserError unless `path` is a file."""
    if not os.path.isfile(path):  # noqa: PTH113 (pathlib's raises on names that no file can have)
        raise UserError(f"The audio file {path} does not exist.")


@contextmanager
def _open(path: Path) -> Iterator[tuple[soundfile.SoundFile, int]]:
    """The open sound file, its header checked, and how many samples each channel has; what libsndfile says about a
    broken one becomes a UserError."""
    require_file(path)
    try:
        with soundfile.SoundFile(path) as file:
            _check_header(path, file)
            yield file, _length(path, file)
    except (soundfile.SoundFileError, OSError) as error:
        reason = getattr(error, "error_string", str(error)).strip().removeprefix("Error : ").rstrip(".")
        raise UserError(f"The audio file {path} cannot be decoded ({reason}).") from error


def _check_header(path: Path, file: soundfile.SoundFile) -> None:
    if file.format not in FORMATS:
        raise UserError(f"The audio file {path} is {file.format}, which is not supported; convert it to WAV or FLAC.")
    if is_cut_short(path):
        raise UserError(f"The audio file {path} is cut short: samples are missing at its end; record or copy it again.")
    low, high = RATES
    if not low <= file.samplerate <= high:
        raise UserError(
            f"The audio file {path} has a sample rate of {file.samplerate} Hz; between {low} and {high} Hz are read."
        )
    if LONGEST < file.frames < _UNTOLD:
        hours = LONGEST / file.samplerate / 3600
        raise UserError(f"The audio file {path} is too long; cut it into parts of at most {hours:.1f} hours.")


def _length(path: Path, file: soundfile.SoundFile) -> int:
    """Samples of each channel; those of an MP3 are counted if its header does not say it."""
    counted = mp3_samples(path) if file.format == "MP3" else None
    length = file.frames if counted is None else counted
    if file.frames >= _UNTOLD or file.frames < length - _GUESSED:
        raise UserError(
            f"The audio file {path} does not say how long it is (was it written into a pipe?); convert it to a WAV or "
            "FLAC file."
        )
    return min(length, int(file.frames))


def write_flac(path: Path, samples: np.ndarray, sample_rate: int) -> None:
    """Write samples, float (N,) in [-1, 1], as 16-bit FLAC; what exceeds full scale is clipped.

    Raises:
        UserError: the file cannot be written.
    """
    integers = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, integers, sample_rate, format="FLAC", subtype="PCM_16")
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(f"Cannot write {path} ({error}); free space or choose another folder.") from error


def resample(samples: np.ndarray, source: int, target: int) -> np.ndarray:
    """Change the sample rate, band-limited: cut or extend the spectrum of the whole signal.

    Only the ratio counts, so `resample(x, 110, 100)` also plays a voice 10 % faster and higher.

    Args:
        samples: float32 (N,).
        source: rate of `samples`, Hz.
        target: wanted rate, Hz.

    Returns:
        float32 (ceil(N * target / source),).
    """
    common = math.gcd(source, target)
    up, down = target // common, source // common
    if up == down:
        return samples
    blocks = smooth_length(math.ceil((len(samples) + _MARGIN) / down))  # whole blocks: both lengths are then exact
    before, after = blocks * down, blocks * up
    spectrum = np.fft.rfft(samples, before)[: min(before, after) // 2 + 1]
    fade = max(1, int(_FADE * len(spectrum)))
    spectrum[-fade:] *= np.cos(np.linspace(0, np.pi / 2, fade, dtype=np.float32)) ** 2
    wanted = math.ceil(len(samples) * up / down)
    return np.fft.irfft(spectrum, after)[:wanted] * np.float32(up / down)


@cache
def smooth_length(number: int) -> int:
    """The smallest product of 2s, 3s and 5s that is at least `number`: lengths at which the FFT is fast."""
    best = 1 << (number - 1).bit_length()
    for five in (5**i for i in range(14) if 5**i <= best):
        for odd in (five * 3**i for i in range(20) if five * 3**i <= best):
            best = min(best, odd << max(0, (math.ceil(number / odd) - 1).bit_length()))
    return best
