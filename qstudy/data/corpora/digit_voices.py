"""Digits spoken by espeak-ng, one at a time, as the recordings of speakers whom nobody has recorded.

Few speakers train for few others: what they have in common with an unheard one is found sooner among a hundred voices
that were never recorded. Their sound is no person's, so they train beside recordings, not instead of them.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from qstudy.data.audio import resample
from qstudy.data.corpora.digit_sound import Voice
from qstudy.data.corpora.espeak import Espeak
from qstudy.data.corpora.voices import ACCENTS, TRAIN_VARIANTS

TAKES = 4
"""Times that a voice says each digit."""
RATES, PITCHES, MELODIES = (110, 211), (25, 76), (10, 81)
"""Words per minute, pitch and melody of espeak-ng: from, and up to but not."""
_SPEECH = 0.01  # of the peak: quieter is silence


def speak_digits(count: int, words: Sequence[str], rate: int, seed: int) -> dict[str, Voice]:
    """Digits of several voices; a pure function of its arguments.

    Args:
        count: voices, at most as many as there are (`voice_names`).
        words: how each digit is called.
        rate: sample rate in Hz.
        seed: of which voices, and how they speak.

    Returns:
        Voice -> digit -> takes, float32 (N,) each, from the first sound to the last.
    """
    generator = np.random.default_rng([seed, count])
    names = sorted(generator.choice(voice_names(), count, replace=False).tolist())
    with Espeak(seed=seed % 2**31) as espeak:
        return {
            name: {digit: list(_takes(espeak, word, name, rate, generator)) for digit, word in enumerate(words)}
            for name in names
        }


def voice_names() -> list[str]:
    """All voices that may train."""
    return [f"{accent}+{variant}" for accent in ACCENTS for variant in TRAIN_VARIANTS]


def _takes(espeak: Espeak, word: str, voice: str, rate: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    for _ in range(TAKES):
        speed, pitch, melody = (int(generator.integers(*bounds)) for bounds in (RATES, PITCHES, MELODIES))
        samples = resample(espeak.say(word, voice, speed, pitch, melody), espeak.sample_rate, rate)
        loud = np.flatnonzero(np.abs(samples) > _SPEECH * np.abs(samples).max())
        samples = samples[loud[0] : loud[-1] + 1]
        yield samples * np.float32(0.5 / np.abs(samples).max())
