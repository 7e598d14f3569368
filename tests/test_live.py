"""A packed LSTM recognizer that listens in compiled loops hears what its parts in torch hear."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from real_speech import recordings
from tiny import FEATURES, filled, model_config, packed, talkative

from qstudy.data.features import Filterbank
from qstudy.quant.integer.accumulator import recorded_accumulators
from qstudy.recognize.live import LiveStream, bit_reversed
from qstudy.recognize.live_loops import powers, transform
from qstudy.recognize.recognizer import Listener, Recognizer, RecognizerStream, recognizer_from_packed
from qstudy.settings import FeatureSettings

pytestmark = pytest.mark.usefixtures("one_thread")  # small tensors
COUNT = 40


def recognizer(running_mean: int, weight: int = 4) -> Recognizer:
    config = model_config(running_mean=running_mean)
    model, policy = talkative(config), {"name": "native_int", "layers": {"*": {"weight": weight, "activation": 8}}}
    return recognizer_from_packed(packed(model, filled(model, policy), config))


@settings(max_examples=20)
@given(st.integers(1, 9), st.integers(0, 99))
def test_the_power_spectrum_is_numpys(log_points: int, seed: int) -> None:
    points = 2**log_points
    wave = np.random.default_rng(seed).standard_normal(2 * points)
    real, imaginary, power = wave[0::2].copy(), wave[1::2].copy(), np.empty(points + 1)
    angles = np.arange(points) * np.pi / points
    transform(real, imaginary, bit_reversed(points).numpy(), np.cos(angles), np.sin(angles))
    powers(real, imaginary, np.cos(angles), np.sin(angles), power)
    np.testing.assert_allclose(power, np.abs(np.fft.rfft(wave)) ** 2, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("running_mean", [0, 30])
def test_texts_are_those_of_the_whole(running_mean: int) -> None:
    device, said = recognizer(running_mean), set()
    generator = np.random.default_rng(0)
    for wave in recordings(COUNT):
        stream, listener = RecognizerStream(device), Listener(device)
        assert isinstance(stream._listener, LiveStream)
        texts = [""]
        for piece in wave.tensor_split(np.sort(generator.integers(0, len(wave), 12)).tolist()):
            texts.append(stream.accept(piece))
            assert texts[-1].startswith(texts[-2])
            assert stream._listener.labels == listener.accept(piece)
        said.add(text := stream.finish())
        assert text == device.transcribe(wave) == device.tokenizer.decode(listener.finish()[0].labels)
    assert len(said) > COUNT / 2


@pytest.mark.parametrize("settings", [FEATURES, FeatureSettings(bins=20, window_ms=16, hop_ms=8, preemphasis=0.0)])
def test_features_are_the_filterbanks(settings: FeatureSettings) -> None:
    """What waits for the encoder, frame by frame: not one in thousands differs by a step."""
    device = recognizer(0)
    device.filterbank = Filterbank(settings)
    bins, frames = settings.bins, device.model.encoder.chunk_frames - 1
    device.model.encoder.normalize.mean, device.model.encoder.normalize.deviation = torch.zeros(bins), torch.ones(bins)
    for wave in recordings(COUNT):
        stream = device.live_stream()
        assert stream is not None
        piece = wave[: settings.window + (frames - 1) * settings.hop]
        stream.accept(piece)
        np.testing.assert_array_equal(stream.waiting[:frames], device.filterbank(piece).numpy())


def test_a_stream_that_is_watched_shows_every_accumulator() -> None:
    device, wave = recognizer(0), recordings(1)[0]
    stream = RecognizerStream(device)
    with recorded_accumulators() as record:
        stream.accept(wave)
    assert record


def test_copies_go_on_by_themselves() -> None:
    device, wave = recognizer(30), recordings(1)[0]
    half = len(wave) // 2
    stream = device.live_stream()
    assert stream is not None
    stream.accept(wave[:half])
    twin, other = copy.deepcopy(stream), copy.deepcopy(device)
    twin.accept(wave.flip(0))
    assert stream.accept(wave[half:]) != twin.labels
    del stream, twin
    assert RecognizerStream(other).accept(wave) == device.tokenizer.decode(Listener(device).accept(wave))


def test_samples_must_be_numbers() -> None:
    stream = RecognizerStream(recognizer(0))
    with pytest.raises(ValueError, match="finite"):
        stream.accept(torch.tensor([0.0, float("nan")]))
    live = recognizer(0).live_stream()
    assert live is not None
    with pytest.raises(ValueError, match=r"must be \(N,\), not \(1, 16000\)"):
        live.accept(torch.zeros(1, 16000))
