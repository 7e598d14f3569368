"""Noise and channel effects: levels and colors are what they say."""

import numpy as np
import pytest

from qstudy.data.corpora import channel, noise

RATE, COUNT = 8000, 32000
KINDS = {
    "white": lambda generator: noise.white(COUNT, generator),
    "pink": lambda generator: noise.pink(COUNT, generator),
    "hum": lambda generator: noise.hum(COUNT, RATE, generator),
    "babble": lambda generator: noise.babble(
        COUNT, [noise.white(999, generator), noise.pink(40000, generator)], generator
    ),
}


def level_db(samples: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(samples.astype(np.float64))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("snr_db", [0.0, 10.0, 35.0])
def test_noise_is_added_at_its_ratio_and_repeats(kind, snr_db):
    sound = noise.white(COUNT, np.random.default_rng(9))
    one, two = (KINDS[kind](np.random.default_rng(1)) for _ in range(2))
    assert one.dtype == np.float32
    assert np.array_equal(one, two)
    mixed = noise.add(sound, one, snr_db)
    assert level_db(sound) - level_db(mixed - sound) == pytest.approx(snr_db, abs=0.05)


def test_pink_noise_falls_by_3_db_per_octave():
    power = np.abs(np.fft.rfft(noise.pink(1 << 18, np.random.default_rng(0)))) ** 2
    octaves = [10 * np.log10(power[1 << i : 2 << i].mean()) for i in range(10, 17)]
    np.testing.assert_allclose(np.diff(octaves), -3.01, atol=0.3)


def test_level_sets_the_peak():
    generator = np.random.default_rng(0)
    peaks = [np.abs(channel.level(noise.white(500, generator), generator, 0.1, 0.9)).max() for _ in range(100)]
    assert 0.1 <= min(peaks) < 0.15
    assert 0.7 < max(peaks) <= 0.9 + 1e-6


def test_color_changes_the_spectrum_smoothly_and_echo_adds_a_tail():
    click = np.zeros(COUNT, np.float32)
    click[1000] = 1
    response_db = 20 * np.log10(np.abs(np.fft.rfft(channel.color(click, np.random.default_rng(3)))))
    assert 1 < np.abs(response_db).max() < 15
    assert np.abs(np.diff(response_db)).max() < 0.1
    echo = channel.echo(click, RATE, np.random.default_rng(3))
    assert echo[1000] == pytest.approx(1, abs=1e-5)
    assert np.abs(echo[:990]).max() < 1e-5
    assert -25 < 10 * np.log10(np.sum(echo[1010:] ** 2)) < 0
