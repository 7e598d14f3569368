"""The bidirectional encoder: torch's own on one utterance, deaf to padding, and the same integers when packed."""

import copy
from typing import Any

import pytest
import torch
from parts import CLOSE, EXACT, batch, model_and_packed, model_of, require_same_integers, train
from real_speech import real_features, recordings
from tiny import BINS, FEATURES, TOKENIZER, speech
from torch import Tensor, nn
from torchaudio.functional import compute_deltas

from qstudy.model import ModelConfig
from qstudy.model.encoders.bilstm import BiLSTMEncoder, with_deltas
from qstudy.quant.layers import quantizable
from qstudy.recognize.recognizer import Recognizer, RecognizerStream

pytestmark = pytest.mark.usefixtures("one_thread")  # small tensors


def config(**options: Any) -> ModelConfig:
    encoder = {"name": "bilstm", "hidden": 8, "layers": 2, "stack": 2, "reduction": 2, **options}
    return ModelConfig(encoder, {"name": "lstm", "hidden": 16, "embedding": 8}, {"hidden": 12})


def made(**options: Any) -> BiLSTMEncoder:
    torch.manual_seed(0)
    return BiLSTMEncoder(FEATURES, **{"hidden": 8, "layers": 2, "stack": 2, "reduction": 2, **options}).eval()


@torch.no_grad()
def test_one_utterance_is_torchs() -> None:
    encoder = made()
    twin = nn.LSTM(2 * BINS, 8, num_layers=2, bidirectional=True, batch_first=True)
    for index, layer in enumerate(encoder.layers):
        for end, lstm in (("", layer.forward_lstm), ("_reverse", layer.backward_lstm)):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(twin, f"{name}_l{index}{end}").copy_(getattr(lstm, f"{name}_l0"))
    x = speech(1, 24)
    expected = twin(encoder.normalize(x)[0].view(1, 12, -1))[0]
    torch.testing.assert_close(encoder(x, torch.tensor([24]))[0], expected.reshape(1, 6, -1))


@pytest.mark.parametrize("options", [{}, {"deltas": True}, {"running_mean": 20, "reduction": 1}], ids=str)
@torch.no_grad()
def test_padding_and_company_change_nothing(options: dict[str, Any]) -> None:
    encoder = made(**options).double()
    x, lengths = speech(4, 40).double(), [40, 33, 7, 4]
    for utterance, length in zip(x, lengths, strict=True):
        utterance[length:] = 1e3 * torch.randn(40 - length, BINS)
    encoded, valid, state = encoder(x, torch.tensor(lengths))
    assert state is None
    for index, length in enumerate(lengths):
        alone, (frames,), _ = encoder(x[index : index + 1, :length], torch.tensor([length]))
        assert frames == valid[index] == length // encoder.chunk_frames
        torch.testing.assert_close(encoded[index, :frames], alone[0], rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_end_is_heard_at_the_beginning() -> None:
    encoder, x = made(), speech(1, 40)
    later = x.clone()
    later[:, 39] += 3
    first, second = (encoder(each, torch.tensor([40]))[0] for each in (x, later))
    assert (first[:, 0] != second[:, 0]).any()


def test_deltas_are_torchaudios() -> None:
    x, lengths = speech(2, 30), torch.tensor([30, 19])
    found = with_deltas(x, lengths)
    for index, length in enumerate(lengths.tolist()):
        own = x[index, :length].t()
        first = compute_deltas(own)
        expected = torch.cat([own, first, compute_deltas(first)]).t()
        torch.testing.assert_close(found[index, :length], expected, rtol=1e-4, atol=1e-5)


def test_every_weight_learns_and_the_loss_falls() -> None:
    model = model_of(config(deltas=True, dropout=0.1))
    before = copy.deepcopy(model)
    first, last = train(model, 25)
    assert last < 0.6 * first
    for (name, old), new in zip(before.named_parameters(), model.parameters(), strict=True):
        assert not torch.equal(old, new), name


@pytest.mark.parametrize("policy", EXACT)
def test_packed_integers_are_those_of_training(policy: str) -> None:
    model, loaded, _ = model_and_packed(config(deltas=True), EXACT[policy])
    assert require_same_integers(model, loaded, batch()) == 2 * 4 + 2 + 3  # LSTMs have two products each


def test_real_speech_gives_the_same_integers() -> None:
    features = real_features(FEATURES, 50)
    model, loaded, _ = model_and_packed(config(), EXACT["native_int W4A8"])
    padded = nn.utils.rnn.pad_sequence(features, batch_first=True, padding_value=-15.9)
    targets = torch.randint(1, TOKENIZER.size, (len(features), 7), generator=torch.Generator().manual_seed(0))
    assert require_same_integers(model, loaded, (padded, torch.tensor([len(each) for each in features]), targets))


@pytest.mark.parametrize("policy", CLOSE)
@torch.no_grad()
def test_packed_is_close_elsewhere(policy: str) -> None:
    model, loaded, _ = model_and_packed(config(), CLOSE[policy])
    first, second = (each(*batch())[0] for each in (model, loaded))
    assert float((first - second).abs().mean()) < 0.01 * float(first.abs().mean())


@torch.no_grad()
def test_one_packed_utterance_is_its_row_of_the_batch() -> None:
    """One at a time the packed LSTMs run as compiled programs."""
    _, loaded, _ = model_and_packed(config(), EXACT["native_int W4A8"])
    features, lengths, _ = batch()
    encoded, valid, _ = loaded.encoder(features, lengths)
    for index, length in enumerate(lengths.tolist()):
        alone: Tensor = loaded.encoder(features[index : index + 1, :length], torch.tensor([length]))[0]
        torch.testing.assert_close(encoded[index, : valid[index]], alone[0], rtol=0, atol=1e-6)
    lstms = [layer for name, layer in quantizable(loaded).items() if "_lstm" in name]
    assert len(lstms) == 4
    assert all(lstm.arithmetic.program is not None for lstm in lstms)


def test_a_stream_is_heard_at_its_end() -> None:
    model, loaded, _ = model_and_packed(config(), EXACT["native_int W4A8"])
    (wave,) = recordings(1)
    whole = Recognizer(model, FEATURES, TOKENIZER).transcribe(wave)
    stream = RecognizerStream(Recognizer(loaded, FEATURES, TOKENIZER))
    for piece in wave.split(3000):
        assert stream.accept(piece) == ""
    assert stream.finish() == whole != ""


def test_shapes_say_what_waits() -> None:
    model = model_of(config(deltas=True))
    shapes = {shape.name: shape for shape in model.shapes()}
    assert shapes["encoder.layers.0.forward_lstm"].matrices == ((32, 2 * 3 * BINS), (32, 8))
    assert shapes["encoder.layers.1.backward_lstm"].matrices == ((32, 16), (32, 8))
    assert shapes["encoder.layers.1.backward_lstm"].frames * 20 == 4000
    assert all(shape.after_end for shape in shapes.values() if shape.kind != "constant" and shape.quantizable)
