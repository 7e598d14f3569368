"""Features: against kaldi-native-fbank, over real speech and noise; streaming against whole."""

from pathlib import Path

import kaldi_native_fbank
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qstudy.data.features import PER_UNIT, SILENCE, FeatureSettings, Filterbank, FilterbankStream, extract
from qstudy.errors import UserError

SPEECH = Path(__file__).parents[2] / "shared" / "data" / "LibriSpeech"
TOLERANCE = 1e-3


def reference(samples: np.ndarray, feature_settings: FeatureSettings) -> np.ndarray:
    """What an on-device runtime computes."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = feature_settings.sample_rate
    options.frame_opts.dither = 0
    options.frame_opts.window_type = "hann"
    options.frame_opts.remove_dc_offset = False
    options.mel_opts.is_librosa = True
    options.mel_opts.num_bins = feature_settings.bins
    options.mel_opts.low_freq = feature_settings.low_hz
    options.mel_opts.high_freq = feature_settings.high_hz
    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(feature_settings.sample_rate, samples.tolist())
    computer.input_finished()
    return np.array([computer.get_frame(i) for i in range(computer.num_frames_ready)])


@pytest.mark.skipif(not SPEECH.exists(), reason="needs ../shared")
@pytest.mark.parametrize("bins", [40, 80])
def test_equal_to_kaldi_on_speech(bins: int) -> None:
    feature_settings = FeatureSettings(bins=bins)
    for path in sorted(SPEECH.rglob("*.flac")):
        samples = soundfile.read(path, dtype="float32")[0]
        ours = Filterbank(feature_settings)(torch.from_numpy(samples)).numpy()
        np.testing.assert_allclose(ours, reference(samples, feature_settings), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "feature_settings",
    [FeatureSettings(), FeatureSettings(bins=80), FeatureSettings(sample_rate=8000, bins=30, low_hz=60, high_hz=3800)],
    ids=["40", "80", "8kHz"],
)
@pytest.mark.parametrize("level", [1.0, 1e-3, 1e-5])
def test_equal_to_kaldi_on_noise(feature_settings: FeatureSettings, level: float) -> None:
    samples = (np.random.default_rng(0).standard_normal(200_000) * level).clip(-1, 1).astype(np.float32)
    ours = Filterbank(feature_settings)(torch.from_numpy(samples)).numpy()
    np.testing.assert_allclose(ours, reference(samples, feature_settings), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("length", [0, 1, 399, 400, 401, 559, 560, 561])
def test_frame_count_is_kaldis(length: int) -> None:
    samples = torch.rand(length)
    frames = Filterbank(FeatureSettings())(samples)
    assert frames.shape == (len(reference(samples.numpy(), FeatureSettings())), 40)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3000), max_size=12), st.integers(0, 2**32), st.sampled_from([0, 50, 300]))
def test_streaming_is_whole(chunks: list[int], seed: int, tail_ms: int) -> None:
    samples = torch.randn(sum(chunks), generator=torch.Generator().manual_seed(seed)) * 0.1
    filterbank = Filterbank(FeatureSettings(tail_ms=tail_ms))
    stream = FilterbankStream(filterbank)
    for _ in range(2):  # the second utterance finds a fresh stream
        parts = [stream.accept(chunk) for chunk in samples.split(chunks)] if chunks else []
        assert torch.equal(torch.cat([*parts, stream.finish()]), extract(filterbank, samples))


def test_blocks_leave_no_seam() -> None:
    filterbank = Filterbank(FeatureSettings())
    samples = torch.randn(160 * 2500, generator=torch.Generator().manual_seed(1)) * 0.1
    whole = filterbank(samples)
    assert torch.equal(whole[1020:1030], filterbank(samples[1020 * 160 : 1029 * 160 + 400]))


def test_silence_is_the_floor_and_features_are_multiples_of_the_resolution() -> None:
    filterbank = Filterbank(FeatureSettings())
    assert (extract(filterbank, torch.zeros(0)) == SILENCE).all()
    frames = filterbank(torch.rand(16000))
    assert torch.equal(frames * PER_UNIT, (frames * PER_UNIT).round())
    assert (frames * PER_UNIT).abs().max() < 2**15


@pytest.mark.parametrize("wrong", [{"high_hz": 9000}, {"low_hz": 8000}, {"hop_ms": 0}, {"hop_ms": 30}, {"bins": 2}])
def test_wrong_settings_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        FeatureSettings(**wrong)  # type: ignore[arg-type]


def test_too_many_bins() -> None:
    with pytest.raises(UserError, match="bins are too many"):
        Filterbank(FeatureSettings(bins=200))


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_samples_that_are_no_numbers(poison):
    samples = torch.zeros(16000)
    samples[15999] = poison
    with pytest.raises(ValueError, match="finite"):
        extract(Filterbank(FeatureSettings()), samples)


def test_a_stream_goes_on_after_samples_that_it_refused() -> None:
    whole = Filterbank(FeatureSettings())
    samples, stream = torch.linspace(-0.5, 0.5, 16000), FilterbankStream(whole)
    parts = [stream.accept(samples[:7000])]
    with pytest.raises(ValueError, match="finite"):
        stream.accept(torch.full((800,), float("nan")))
    parts += [stream.accept(samples[7000:]), stream.finish()]
    assert torch.equal(torch.cat(parts), extract(whole, samples))
