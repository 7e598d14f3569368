"""Augmentation of log-mel features: other speakers, rooms and noises, made from cached features in microseconds.

Order: speed, vocal tract, channel and gain, noise, masks. Everything works on (T, D) frames, T frames of D mel bins.
The tail of silence behind an utterance stays silent, because it does so when the model is used.
"""

from collections.abc import Callable

import numpy as np
import torch

from qstudy.data.features import SILENCE, Filterbank, mel_edges_hz
from qstudy.settings import AugmentSettings, FeatureSettings

_NATS = np.log(10) / 10  # natural logarithm of a power, per decibel
_NOISE_S = 20  # seconds of white noise to cut from
_CURVES = 4  # cosines that a random channel is the sum of
_CLOSE = 1e-3  # interpolating between silent bins may miss silence by a rounding


class Augment:
    """Random changes of one utterance; deterministic for a generator."""

    def __init__(self, settings: AugmentSettings, features: FeatureSettings, mean: np.ndarray) -> None:
        """Prepare noise and tables.

        Args:
            settings: how often and how far.
            features: how the frames were made.
            mean: (D,) float32, what masked values become: the global mean.
        """
        self.settings, self.features = settings, features
        self.mean = mean.astype(np.float32)
        self._edges = mel_edges_hz(features)
        generator = torch.Generator().manual_seed(0)
        white = torch.randn(_NOISE_S * features.sample_rate, generator=generator) * 0.1
        self._white = Filterbank(features)(white).numpy()  # (frames, D)
        self._octaves = np.log2(self._edges[1:-1] / 1000).astype(np.float32)  # (D,) of each bin above 1 kHz
        angles = np.pi * (np.arange(features.bins) + 0.5) / features.bins
        self._curves = np.stack([np.cos(angles * k) / k for k in range(1, _CURVES + 1)]).astype(np.float32)

    def __call__(
        self,
        frames: np.ndarray,
        generator: np.random.Generator,
        others: Callable[[], np.ndarray] | None = None,
    ) -> np.ndarray:
        """Change one utterance.

        Args:
            frames: (T, D) float32 log-mel energies with their tail; not changed.
            generator: decides everything.
            others: gives (T', D) float32 frames of some other utterance, for babble; no babble without it.

        Returns:
            (T', D) float32; another length if the speed changed.
        """
        settings = self.settings
        chance = generator.random(6, dtype=np.float32)
        tail = self.features.tail_frames
        if chance[0] < settings.speed:
            factor = _between(generator, settings.speed_range)
            frames, tail = stretch(frames, factor), round(tail / factor)
        if chance[1] < settings.warp:
            frames = frames @ self.warp_matrix(_between(generator, settings.warp_range))
        silent = frames <= SILENCE + _CLOSE
        offset = np.zeros(self.features.bins, dtype=np.float32)
        if chance[2] < settings.channel:
            offset += self._channel(generator)
        if chance[3] < settings.gain:
            offset += np.float32(_between(generator, settings.gain_range_db) * _NATS)
        frames = frames + offset
        np.maximum(frames, np.float32(SILENCE), out=frames)
        np.copyto(frames, SILENCE, where=silent)  # no gain makes anything of nothing
        spoken = frames[: max(0, len(frames) - tail)]
        if chance[4] < settings.noise:
            add(spoken, self._noise(generator, len(spoken)), _between(generator, settings.noise_snr_db))
        if chance[5] < settings.babble and others is not None:
            voices = [_cut(generator, others(), len(spoken)) for _ in range(settings.babble_voices)]
            add(spoken, np.log(sum(np.exp(voice) for voice in voices)), _between(generator, settings.babble_snr_db))
        self._mask(frames, generator)
        return frames

    def warp_matrix(self, factor: float) -> np.ndarray:
        """(D, D) float32 that takes frames (T, D) to a voice whose frequencies are `factor` times higher.

        Vocal-tract length perturbation (Jaitly and Hinton 2013) by interpolation between mel bins. Frequencies map
        linearly up to where either axis reaches 7/8 of the band, and from there linearly to the band's upper edge.
        """
        low, high, centres = self.features.low_hz, self.features.high_hz, self._edges[1:-1]
        knee = low + 0.875 * (high - low) * min(1, factor)  # on the new axis
        source = np.interp(centres, [low, knee, high], [low, low + (knee - low) / factor, high])
        position = np.interp(source, centres, np.arange(self.features.bins))
        below = np.minimum(position.astype(np.int64), self.features.bins - 2)
        matrix = np.zeros((self.features.bins, self.features.bins), dtype=np.float32)
        columns = np.arange(self.features.bins)
        matrix[below, columns] = below + 1 - position
        matrix[below + 1, columns] = position - below
        return matrix

    def _channel(self, generator: np.random.Generator) -> np.ndarray:
        weights = generator.standard_normal(_CURVES, dtype=np.float32) * np.float32(self.settings.channel_db * _NATS)
        return weights @ self._curves

    def _noise(self, generator: np.random.Generator, length: int) -> np.ndarray:
        """(length, D) log-mel noise of any level: white (0 dB per octave) to brown (-6 dB)."""
        slope = np.float32(generator.uniform(-6, 0) * _NATS)
        return _cut(generator, self._white, length) + slope * self._octaves

    def _mask(self, frames: np.ndarray, generator: np.random.Generator) -> None:
        """Hide bands and spans in place (SpecAugment: Park et al. 2019, arXiv 1904.08779)."""
        settings, (length, bins) = self.settings, frames.shape
        for _ in range(settings.bin_masks):
            start, end = _span(generator, settings.mask, bins, round(settings.bin_mask_share * bins))
            frames[:, start:end] = self.mean[start:end]
        for _ in range(settings.frame_masks):
            start, end = _span(generator, settings.mask, length, round(settings.frame_mask_ms / self.features.hop_ms))
            frames[start:end] = self.mean


def stretched_length(frames: int, speed: float) -> int:
    """Frames of an utterance of so many, at `speed` times the pace."""
    return max(1, round(frames / speed))


def stretch(frames: np.ndarray, speed: float) -> np.ndarray:
    """Frames (T, D) at `speed` times the pace: (round(T / speed), D), by linear interpolation."""
    length = stretched_length(len(frames), speed)
    position = np.minimum(np.arange(length) * speed, len(frames) - 1)
    below = position.astype(np.int64)
    share = (position - below).astype(np.float32)[:, None]
    lower, result = np.take(frames, below, axis=0), np.take(frames, below + 1, axis=0, mode="clip")
    result -= lower
    result *= share
    result += lower
    return result


def add(frames: np.ndarray, noise: np.ndarray, snr_db: float) -> None:
    """Add the powers of noise (T, D) to frames (T, D) in place, both log-mel, at a signal-to-noise ratio.

    The ratio is that of mean powers over frames and bins.
    """
    if not len(frames):
        return
    signal, power = np.exp(frames), np.exp(noise)
    power *= np.float32(signal.mean() / power.mean() / 10 ** (snr_db / 10))
    signal += power
    np.log(signal, out=frames)


def _between(generator: np.random.Generator, limits: tuple[float, float]) -> float:
    return limits[0] + (limits[1] - limits[0]) * generator.random()


def _cut(generator: np.random.Generator, frames: np.ndarray, length: int) -> np.ndarray:
    """(length, D): from a random frame on, and round again from the first."""
    return np.take(frames, np.arange(length) + generator.integers(len(frames)), axis=0, mode="wrap")


def _span(generator: np.random.Generator, probability: float, size: int, widest: int) -> tuple[int, int]:
    """A random span of up to `widest` of `size` places; an empty one if chance has it so."""
    if generator.random() >= probability:
        return 0, 0
    width = int(generator.integers(min(widest, size) + 1))
    start = int(generator.integers(size - width + 1))
    return start, start + width
