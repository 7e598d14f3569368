"""Log-mel filterbank features, whole or streaming: the ones that kaldi-native-fbank computes on devices.

Everything is computed in float64 and rounded to steps of 1/1024 (0.004 dB). So features depend neither on how the audio
was cut into chunks nor on how a library orders its sums, and 16-bit integers hold them exactly (`cache.py`).
"""

import math

import numpy as np
import torch
from torch import Tensor

from qstudy.errors import UserError
from qstudy.settings import FeatureSettings

PER_UNIT = 1024
"""Features are multiples of 1 / PER_UNIT."""
SILENCE = round(math.log(np.finfo(np.float32).eps) * PER_UNIT) / PER_UNIT
"""The smallest feature (Kaldi's floor, log of float32's epsilon): what digital silence looks like."""
BLOCK = 1024  # frames computed at a time: bounds the memory that an hour of audio needs


def mel_from_hz(hz: np.ndarray) -> np.ndarray:
    """Slaney's mel scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above."""
    return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4))


def hz_from_mel(mel: np.ndarray) -> np.ndarray:
    """The inverse of `mel_from_hz`."""
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((np.maximum(mel, 15) - 15) * np.log(6.4) / 27))


def mel_edges_hz(settings: FeatureSettings) -> np.ndarray:
    """(bins + 2,) float64: bin i rises from edge i to its centre, edge i + 1, and falls to edge i + 2."""
    low, high = mel_from_hz(np.array([settings.low_hz, settings.high_hz]))
    return hz_from_mel(np.linspace(low, high, settings.bins + 2))


def mel_filters(settings: FeatureSettings, fft_size: int) -> np.ndarray:
    """(fft_size // 2 + 1, bins) float64 triangles of equal area: librosa's filterbank with Slaney's norm.

    Raises:
        UserError: a bin is narrower than the distance between two FFT frequencies.
    """
    edges = mel_edges_hz(settings)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    hz = np.arange(fft_size // 2 + 1)[:, None] * settings.sample_rate / fft_size
    triangles = np.minimum((hz - left) / (centre - left), (right - hz) / (right - centre)).clip(0)
    if not triangles.any(axis=0).all():
        raise UserError(
            f"features: {settings.bins} bins are too many for windows of {settings.window_ms} ms; use fewer."
        )
    return triangles * 2 / (right - left)


class Filterbank:
    """Log-mel energies of whole signals.

    Equal to kaldi-native-fbank with `snip_edges`, `window_type="hann"`, `remove_dc_offset=False`, `dither=0` and
    `mel_opts.is_librosa=True`, for samples in [-1, 1].
    """

    def __init__(self, settings: FeatureSettings) -> None:
        self.settings = settings
        self.fft_size = 1 << (settings.window - 1).bit_length()
        self.window = torch.hann_window(settings.window, periodic=True, dtype=torch.float64)
        self.filters = torch.from_numpy(mel_filters(settings, self.fft_size))

    def frames(self, samples: int) -> int:
        """Number of frames that lie wholly within so many samples."""
        return max(0, 1 + (samples - self.settings.window) // self.settings.hop)

    def __call__(self, samples: Tensor) -> Tensor:
        """Compute the frames of a signal, without tail.

        Args:
            samples: (N,) float32 in [-1, 1], at the settings' sample rate, on the CPU.

        Returns:
            (frames, bins) float32 natural logarithms of mel energies, multiples of 1 / PER_UNIT.

        Raises:
            ValueError: a sample is no number; integer arithmetic would make some number of it.
        """
        if not samples.isfinite().all():
            raise ValueError("Samples must be finite numbers.")
        count = self.frames(len(samples))
        if not count:
            return torch.zeros(0, self.settings.bins)
        wave = samples.double()
        # Kaldi filters each window by itself; only a window's first sample would differ, and Hann's is 0 there.
        wave = torch.cat([wave[:1], wave[1:] - self.settings.preemphasis * wave[:-1]])
        windows = wave.unfold(0, self.settings.window, self.settings.hop)
        return torch.cat([self._log_mel(windows[start : start + BLOCK]) for start in range(0, count, BLOCK)])

    def _log_mel(self, windows: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(windows * self.window, n=self.fft_size)
        energies = (spectrum.real.square() + spectrum.imag.square()) @ self.filters
        return energies.clamp_(min=torch.finfo(torch.float32).eps).log_().mul_(PER_UNIT).round_().div_(PER_UNIT).float()


def extract(filterbank: Filterbank, samples: Tensor) -> Tensor:
    """(frames, bins) float32 features of a whole utterance (N,) with its tail of silence: what a model is given."""
    return filterbank(torch.cat([samples, samples.new_zeros(filterbank.settings.tail)]))


class FilterbankStream:
    """The features of one utterance, as its audio arrives; all of them together are exactly `extract` of the whole."""

    def __init__(self, filterbank: Filterbank) -> None:
        self.filterbank = filterbank
        self._pending = torch.zeros(0)

    def accept(self, samples: Tensor) -> Tensor:
        """(frames, bins) float32: the frames that (N,) more float32 samples complete, maybe none."""
        pending = torch.cat([self._pending, samples])
        frames = self.filterbank(pending)  # what it refuses is not kept
        self._pending = pending[len(frames) * self.filterbank.settings.hop :]
        return frames

    def finish(self) -> Tensor:
        """(frames, bins) float32: the last frames, the tail's included; a new utterance may follow."""
        frames = self.accept(torch.zeros(self.filterbank.settings.tail))
        self._pending = torch.zeros(0)
        return frames
