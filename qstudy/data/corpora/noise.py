"""Background noise for corpora: white, pink, mains hum, babble; each float32 (N,), at any level, mixed in by `add`."""

from collections.abc import Sequence

import numpy as np

from qstudy.data.audio import smooth_length


def white(count: int, generator: np.random.Generator) -> np.ndarray:
    """Equal power at every frequency: electronics, wind."""
    return generator.standard_normal(count, dtype=np.float32)


def pink(count: int, generator: np.random.Generator) -> np.ndarray:
    """Power falls by 3 dB per octave: rooms, traffic."""
    size = smooth_length(count)
    spectrum = np.fft.rfft(white(size, generator))
    return np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1, dtype=np.float32)), size)[:count]


def hum(count: int, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """Mains at 50 or 60 Hz with its harmonics, over a little white noise."""
    tones = generator.choice([50.0, 60.0]) * np.arange(1, 9)
    weights = generator.random(len(tones), dtype=np.float32) / np.arange(1, 9, dtype=np.float32)
    phases = generator.uniform(0, 2 * np.pi, len(tones))
    time = np.arange(count) / sample_rate  # (N,) seconds
    angles = (2 * np.pi * tones[:, None] * time + phases[:, None]).astype(np.float32)  # (8, N)
    return weights @ np.sin(angles) + np.float32(0.1) * white(count, generator)


def babble(count: int, voices: Sequence[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """Several voices at once, each repeated to fill `count` samples and started anywhere; equal loudness."""
    mixture = np.zeros(count, np.float32)
    for voice in voices:
        looped = np.roll(np.resize(voice, count), generator.integers(count))
        mixture += looped / np.sqrt(power(looped))
    return mixture


def power(samples: np.ndarray) -> float:
    """Mean square, never zero."""
    return float(np.mean(np.square(samples))) + 1e-10


def add(samples: np.ndarray, noise: np.ndarray, snr_db: float, signal: float | None = None) -> np.ndarray:
    """Mix `noise` (N,) under `samples` (N,) so that their powers differ by `snr_db`; `signal` is the power of the
    samples, if not their mean square."""
    gain = np.sqrt((power(samples) if signal is None else signal) / power(noise) / 10 ** (snr_db / 10))
    return samples + np.float32(gain) * noise


def add_faint(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """No recording is perfectly silent: white noise 50 to 75 dB under full scale."""
    return samples + np.float32(generator.uniform(0.0002, 0.003)) * white(len(samples), generator)
