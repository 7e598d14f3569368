"""The sound of a digit string: one speaker's recordings joined, cleanly for dev and test, varied for training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qstudy.data.audio import resample
from qstudy.data.corpora import channel, noise

# One speaker's recordings of each digit, float32 (N,).
Voice = dict[int, list[np.ndarray]]


@dataclass(frozen=True)
class DigitString:
    """One string to be made: what is said, by whom, and the seed of everything random about its sound."""

    digits: tuple[int, ...]
    speaker: str
    audio: Path
    seed: tuple[int, ...]
    take: int | None = None
    """Which of the speaker's recordings of each digit are joined: those of this place; None: any."""


# What makes the sound: (string, voices by speaker, sample rate) -> samples, float32 (N,).
Render = Callable[[DigitString, dict[str, Voice], int], np.ndarray]


def render_clean(string: DigitString, voices: dict[str, Voice], rate: int) -> np.ndarray:
    """A dev or test string, float32 (N,): the recordings as they are, with silences, faint noise and gain."""
    generator = np.random.default_rng(string.seed)
    voice = voices[string.speaker]
    clips = _pick(voice, string.digits, generator) if string.take is None else _take(voice, string.digits, string.take)
    shortest = np.array([0.05, *[0.03] * (len(clips) - 1), 0.05])  # seconds before, between and after
    samples = _join(clips, generator.uniform(shortest, 0.25), rate)
    return noise.add_faint(channel.level(samples, generator, 0.3, 0.9), generator)


def render_varied(string: DigitString, voices: dict[str, Voice], rate: int) -> np.ndarray:
    """A training string, float32 (N,): other speeds, pitches, microphones, rooms, levels and noises."""
    generator = np.random.default_rng(string.seed)
    clips = _pick(voices[string.speaker], string.digits, generator)
    clips = [clip * np.float32(10 ** (generator.uniform(-2, 2) / 20)) for clip in clips]
    samples = _join(clips, generator.uniform(0, 0.35, len(clips) + 1), rate)
    if generator.random() < 0.75:
        samples = resample(samples, round(100 * np.exp(generator.uniform(np.log(0.85), np.log(1.2)))), 100)
    if generator.random() < 0.5:
        samples = channel.color(samples, generator)
    if generator.random() < 0.25:
        samples = channel.echo(samples, rate, generator)
    if generator.random() < 0.6:
        samples = noise.add(samples, _background(len(samples), voices, rate, generator), generator.uniform(5, 35))
    return noise.add_faint(channel.level(samples, generator, 0.05, 0.9), generator)


def _pick(voice: Voice, digits: Sequence[int], generator: np.random.Generator) -> list[np.ndarray]:
    return [voice[digit][generator.integers(len(voice[digit]))] for digit in digits]


def _take(voice: Voice, digits: Sequence[int], take: int) -> list[np.ndarray]:
    """One recording of each digit; a digit that has fewer than others begins again."""
    return [voice[digit][take % len(voice[digit])] for digit in digits]


def _join(clips: Sequence[np.ndarray], gaps: np.ndarray, rate: int) -> np.ndarray:
    """Clips with silences (seconds) before, between and after them."""
    silences = [np.zeros(int(gap * rate), np.float32) for gap in gaps]
    parts = [silences[0]]
    for clip, silence in zip(clips, silences[1:], strict=True):
        parts += [clip, silence]
    return np.concatenate(parts)


def _background(count: int, voices: dict[str, Voice], rate: int, generator: np.random.Generator) -> np.ndarray:
    kind = generator.choice(["white", "pink", "hum", "babble"], p=[0.3, 0.3, 0.1, 0.3])
    if kind == "hum":
        return noise.hum(count, rate, generator)
    if kind == "babble":
        talkers = [list(voices.values())[generator.integers(len(voices))] for _ in range(3)]
        return noise.babble(
            count,
            [np.concatenate(_pick(talker, generator.permutation(10).tolist(), generator)) for talker in talkers],
            generator,
        )
    return (noise.white if kind == "white" else noise.pink)(count, generator)
