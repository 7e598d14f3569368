"""Augmentation: each change against what it should do to sound, on features of synthesized vowels and of noise."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qstudy.data.augment import Augment, AugmentSettings, add, stretch
from qstudy.data.features import SILENCE, FeatureSettings, Filterbank, extract, mel_edges_hz
from qstudy.errors import UserError

FEATURES = FeatureSettings()
MEAN = np.linspace(-9, -11, 40).astype(np.float32)
OFF = dict.fromkeys(("speed", "warp", "channel", "gain", "noise", "babble", "mask"), 0.0)


def only(**changes: object) -> Augment:
    """Nothing but the changes named."""
    return Augment(AugmentSettings(**OFF | changes), FEATURES, MEAN)  # type: ignore[arg-type]


def vowel(formants: tuple[float, ...], seconds: float = 1.0) -> np.ndarray:
    """Noise with formants: (frames, 40) features with their tail."""
    generator = np.random.default_rng(0)
    spectrum = np.fft.rfft(generator.standard_normal(int(16000 * seconds)))
    hz = np.fft.rfftfreq(int(16000 * seconds), 1 / 16000)
    shape = sum(1 / (1 + ((hz - formant) / 100) ** 2) for formant in formants)
    samples = np.fft.irfft(spectrum * shape)
    return extract(Filterbank(FEATURES), torch.from_numpy(samples / 10 / samples.std()).float()).numpy()


VOICE = vowel((500, 1500, 2500))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 200))
def test_anything_goes_in(seed: int, length: int) -> None:
    augment = Augment(AugmentSettings(), FEATURES, MEAN)
    frames = VOICE[:length] if length else VOICE[-28:]  # 28 frames: the tail of no sound at all
    before = frames.copy()
    changed = augment(frames, np.random.default_rng(seed), lambda: VOICE)
    again = augment(frames, np.random.default_rng(seed), lambda: VOICE)
    np.testing.assert_array_equal(changed, again)
    np.testing.assert_array_equal(frames, before)
    assert changed.dtype == np.float32
    assert changed.shape[1] == 40
    assert np.isfinite(changed).all()
    assert changed.min() >= SILENCE - 1e-3


def test_off_is_off() -> None:
    np.testing.assert_array_equal(only()(VOICE, np.random.default_rng(0), lambda: VOICE), VOICE)


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.3])
def test_warp_moves_formants(factor: float) -> None:
    warped = (VOICE @ only().warp_matrix(factor))[:90].mean(0)
    wanted = vowel((500 * factor, 1500 * factor, 2500 * factor))[:90].mean(0)
    kept = mel_edges_hz(FEATURES)[1:-1] < 4000
    error = np.abs(warped - wanted)[kept].mean()
    assert error < (0.1 if factor == 1 else 0.5)
    if factor != 1:
        assert error < np.abs(VOICE[:90].mean(0) - wanted)[kept].mean() / 3


def test_speed() -> None:
    np.testing.assert_array_equal(stretch(VOICE, 1.0), VOICE)
    ramp = np.arange(100, dtype=np.float32)[:, None] * np.ones(40, dtype=np.float32)
    np.testing.assert_allclose(stretch(ramp, 1.25)[:, 0], np.arange(80) * 1.25, rtol=1e-6)
    slow = stretch(ramp, 0.8)
    assert len(slow) == 125
    np.testing.assert_allclose(slow[:124, 0], np.arange(124) * 0.8, rtol=1e-5)
    assert slow.max() == 99


def test_noise_at_the_wanted_ratio_and_not_in_the_tail() -> None:
    noisy = only(noise=1, noise_snr_db=(10, 10))(VOICE, np.random.default_rng(0))
    spoken = slice(0, -FEATURES.tail_frames)
    power, before = np.exp(noisy[spoken].astype(np.float64)), np.exp(VOICE[spoken].astype(np.float64))
    assert 10 * np.log10(before.mean() / (power - before).mean()) == pytest.approx(10, abs=0.01)
    np.testing.assert_array_equal(noisy[-FEATURES.tail_frames :], VOICE[-FEATURES.tail_frames :])


def test_noise_is_that_of_sound() -> None:
    """Adding powers of features equals, on average, adding samples."""
    generator = np.random.default_rng(0)
    speech, noise = (generator.standard_normal(64000).astype(np.float32) * level for level in (0.01, 0.02))
    filterbank = Filterbank(FEATURES)
    mixed = filterbank(torch.from_numpy(speech + noise)).numpy()
    frames = filterbank(torch.from_numpy(speech)).numpy()
    add(frames, filterbank(torch.from_numpy(noise)).numpy(), snr_db=20 * np.log10(0.5))
    np.testing.assert_allclose(np.log(np.exp(frames).mean(0)), np.log(np.exp(mixed).mean(0)), atol=0.15)


def test_colours_of_noise() -> None:
    augment = only(noise=1)
    octaves = np.log2(mel_edges_hz(FEATURES)[-2] / mel_edges_hz(FEATURES)[1])
    drops = []
    for seed in range(30):
        noise = augment._noise(np.random.default_rng(seed), 500).mean(0) - augment._white.mean(0)
        drops.append((noise[0] - noise[-1]) / octaves * 10 / np.log(10))
    assert 0 <= min(drops) < 1 < 5 < max(drops) <= 6.1


def test_babble_needs_others() -> None:
    augment = only(babble=1)
    np.testing.assert_array_equal(augment(VOICE, np.random.default_rng(0)), VOICE)
    other = vowel((800, 1200), 0.4)
    assert (augment(VOICE, np.random.default_rng(0), lambda: other) >= VOICE - 1e-5).all()


def test_gain_moves_everything_but_silence() -> None:
    louder = only(gain=1, gain_range_db=(10, 10))(VOICE, np.random.default_rng(0))
    np.testing.assert_allclose(louder[:90], VOICE[:90] + np.log(10), atol=1e-5)
    assert (louder[-20:] == SILENCE).all()
    assert only(gain=1, gain_range_db=(-200, -200))(VOICE, np.random.default_rng(0)).max() == np.float32(SILENCE)
    both = only(gain=1, gain_range_db=(10, 10), warp=1, speed=1)(VOICE, np.random.default_rng(0))
    assert (both[-20:] == SILENCE).all()


def test_channel_is_smooth_and_constant_in_time() -> None:
    change = (only(channel=1)(VOICE, np.random.default_rng(0)) - VOICE)[:90]
    np.testing.assert_allclose(change, np.broadcast_to(change[0], change.shape), atol=1e-4)
    assert np.abs(change[0]).max() > 0.1
    assert np.abs(np.diff(change[0])).max() < 0.5


def test_masks() -> None:
    augment = only(mask=1, bin_masks=2, bin_mask_share=0.2, frame_masks=2, frame_mask_ms=150)
    bins, spans = [], []
    for seed in range(100):
        hidden = augment(VOICE, np.random.default_rng(seed)) == MEAN
        bins.append(hidden.all(0).sum())
        spans.append(hidden.all(1).sum())
    assert 12 < max(bins) <= 16  # two bands of up to 8
    assert 20 < max(spans) <= 30
    assert min(bins) < 4
    assert min(spans) < 6


@pytest.mark.parametrize("wrong", [{"noise": 1.5}, {"speed_range": (1.2, 0.8)}, {"warp_range": (0, 1)}, {"mask": -1}])
def test_wrong_settings_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        AugmentSettings(**wrong)  # type: ignore[arg-type]
