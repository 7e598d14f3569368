"""What a microphone and a room do to a voice: color, echo, level at random, so that few voices train for many."""

import numpy as np

from qstudy.data.audio import smooth_length


def color(samples: np.ndarray, generator: np.random.Generator, depth_db: float = 6.0) -> np.ndarray:
    """Filter by a smooth random curve over frequency, up to about `depth_db` up or down: another microphone.

    Args:
        samples: float32 (N,).
        generator: source of the curve: a tilt and two slow waves.
        depth_db: size of each of the three components.
    """
    size = smooth_length(len(samples) + 256)
    place = np.linspace(-1, 1, size // 2 + 1, dtype=np.float32)  # 0 Hz to half the sample rate
    tilt, *waves = generator.uniform(-depth_db, depth_db, 3).tolist()
    phases = generator.uniform(0, 2 * np.pi, 2).tolist()
    curve_db = tilt * place
    for cycles, wave, phase in zip((1.0, 2.0), waves, phases, strict=True):
        curve_db += wave / 2 * np.cos(np.pi * cycles * place + phase)
    spectrum = np.fft.rfft(samples, size) * np.exp(curve_db * np.float32(np.log(10) / 20))
    return np.fft.irfft(spectrum, size)[: len(samples)]


def echo(samples: np.ndarray, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """Convolve with a small room: exponentially decaying noise 5 to 20 dB under the direct sound.

    Args:
        samples: float32 (N,).
        sample_rate: Hz.
        generator: source of the room; its echo dies by 60 dB within 0.1 to 0.4 s.
    """
    seconds = generator.uniform(0.1, 0.4)
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    tail = generator.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    tail *= 10 ** (-generator.uniform(5, 20) / 20) / np.sqrt(np.sum(tail**2))
    room = np.concatenate(
        [[1.0], np.zeros(int(0.002 * sample_rate)), tail], dtype=np.float32
    )  # (R,) direct sound, 2 ms, echo
    size = smooth_length(len(samples) + len(room))
    return np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(room, size), size)[: len(samples)]


def level(samples: np.ndarray, generator: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Scale to a peak between `low` and `high` of full scale, log-uniform: near and far, loud and quiet."""
    peak = np.exp(generator.uniform(np.log(low), np.log(high)))
    return samples * np.float32(peak / max(1e-6, np.abs(samples).max()))
