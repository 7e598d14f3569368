"""The transducer: streaming is the whole, one step at a time is all at once, and its shapes tell the truth."""

import copy
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import BINS, FEATURES, LSTM, STATELESS, TOKENIZER, filled, model_config, packed, speech, talkative
from torch import Tensor

from qstudy.errors import UserError
from qstudy.model import RNNT, ModelConfig
from qstudy.model.shapes_only import shapes_only
from qstudy.quant.packed.model import fill_packed

FRAMES = 48
FORMS = ["float", "8 bits", "packed"]


def model_in(form: str, running_mean: int) -> RNNT:
    config = model_config(running_mean=running_mean)
    model = talkative(config)
    if form == "float":
        return model
    policy = filled(model, {"name": "ptq", "layers": {"*": {"weight": 4, "activation": 8}}})
    if form == "packed":
        device = packed(model, policy, config)
        model = talkative(config, seed=2)
        fill_packed(model, device)
    return model.eval()


MODELS = {(form, mean): model_in(form, mean) for form in FORMS for mean in (0, 20)}


def in_chunks(model: RNNT, x: Tensor, cuts: list[int]) -> Tensor:
    """Encoder frames of features x that arrive in pieces which end at `cuts` (joiner frames)."""
    edges = sorted({0, *cuts, x.shape[1] // model.encoder.chunk_frames})
    state, parts = None, []
    for begin, end in itertools.pairwise(edges):
        piece = x[:, begin * model.encoder.chunk_frames : end * model.encoder.chunk_frames]
        encoded, lengths, state = model.encoder(piece, torch.full((len(x),), piece.shape[1]), state)
        assert lengths.tolist() == [end - begin] * len(x)
        parts.append(encoded)
    return torch.cat(parts, 1)


@pytest.mark.parametrize("running_mean", [0, 20], ids=["global mean", "running mean"])
@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=12)
@given(cuts=st.lists(st.integers(1, FRAMES // 4 - 1), max_size=12))
@torch.no_grad()
def test_streaming_is_the_whole(form: str, running_mean: int, cuts: list[int]) -> None:
    model = MODELS[form, running_mean]
    x = speech(2, FRAMES)
    if form == "float":
        model, x = copy.deepcopy(model).double(), x.double()
    whole, lengths, _ = model.encoder(x, torch.tensor([FRAMES, FRAMES - 5]))
    assert lengths.tolist() == [FRAMES // 4, (FRAMES - 5) // 4]
    difference = (in_chunks(model, x, cuts) - whole).abs()
    if form == "float":
        assert float(difference.max()) < 1e-9
    else:  # sums in another order may round a tie the other way, seldom and by one step
        assert float(difference.max()) < 0.2
        assert float(difference.mean()) < 2e-3


@torch.no_grad()
def test_the_future_is_never_heard() -> None:
    x = speech(1, FRAMES)
    other = x.clone()
    other[:, 24:] += 5
    for model in MODELS.values():
        first, second = (model.encoder(each, torch.tensor([FRAMES]))[0] for each in (x, other))
        assert torch.equal(first[:, :6], second[:, :6])
        assert not torch.equal(first[:, 6:], second[:, 6:])


@torch.no_grad()
def test_running_mean_by_hand() -> None:
    normalize = MODELS["float", 20].encoder.normalize
    x = speech(2, 7)
    z = (x - normalize.mean) / normalize.deviation
    expected = [z[:, t] - z[:, : t + 1].sum(1) / (20 + t + 1) for t in range(7)]
    torch.testing.assert_close(normalize(x)[0], torch.stack(expected, 1))


@pytest.mark.parametrize("form", FORMS[:2])
@torch.no_grad()
def test_padding_does_not_matter(form: str) -> None:
    model, x = MODELS[form, 0], speech(2, FRAMES)
    padded = torch.cat([x, torch.full((2, 12, BINS), -15.9)], 1)
    lengths = torch.tensor([FRAMES, FRAMES])
    assert torch.equal(model.encoder(padded, lengths)[0][:, : FRAMES // 4], model.encoder(x, lengths)[0])


PREDICTORS = [LSTM, STATELESS, {**STATELESS, "context": 1}, {**STATELESS, "context": 4}]


@pytest.mark.parametrize("predictor", PREDICTORS, ids=lambda p: f"{p['name']}{p.get('context', '')}")
@settings(max_examples=8)
@given(labels=st.lists(st.integers(1, TOKENIZER.size - 1), max_size=9))
@torch.no_grad()
def test_predictor_steps_are_its_forward_pass(predictor: dict[str, Any], labels: list[int]) -> None:
    model = talkative(model_config(predictor))
    targets = torch.tensor([labels, labels[::-1]], dtype=torch.int64).reshape(2, len(labels))
    whole = model.predictor(targets)
    assert whole.shape == (2, len(labels) + 1, model.predictor.output_size)
    state = model.predictor.start(2, torch.device("cpu"))
    for position in range(len(labels) + 1):
        label = targets[:, position - 1] if position else torch.zeros(2, dtype=torch.int64)
        vector, state = model.predictor.advance(label, state)
        torch.testing.assert_close(vector, whole[:, position], atol=1e-4, rtol=0)


@torch.no_grad()
def test_logits_of_every_pair() -> None:
    model = talkative()
    targets = torch.tensor([[3, 1, 4], [1, 5, 0]])
    logits, lengths, encoded = model(speech(2, 20), torch.tensor([20, 17]), targets)
    assert logits.shape == (2, 5, 4, TOKENIZER.size)
    assert lengths.tolist() == [5, 4]
    predicted = model.predictor(targets)
    alone = model.joiner.output(
        torch.tanh(model.joiner.encoder(encoded[1, 2]) + model.joiner.predictor(predicted[1, 3]))
    )
    torch.testing.assert_close(logits[1, 2, 3], alone)


@pytest.mark.parametrize("predictor", [LSTM, STATELESS], ids=["lstm", "stateless"])
def test_shapes_count_every_parameter(predictor: dict[str, Any]) -> None:
    model = talkative(model_config(predictor))
    shapes = {shape.name: shape for shape in model.shapes()}
    lstms = sum(1 for shape in shapes.values() if shape.kind == "lstm")
    doubled = lstms * 4 * 16  # torch keeps two biases per LSTM, of which only the sum counts
    constants = shapes["encoder.normalize"].vectors
    assert constants == 2 * BINS
    assert (
        sum(shape.parameters for shape in shapes.values())
        == sum(p.numel() for p in model.parameters()) - doubled + constants
    )
    assert shapes["encoder.lstm.1"].every_ms == 20.0
    assert shapes["joiner.encoder"].every_ms == 40.0
    assert shapes["joiner.predictor"].per_label == 1


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (ModelConfig(encoder={"name": "gru"}), ["model.encoder", "'gru'", "lstm"]),
        (ModelConfig(encoder={"name": "lstm", "hiden": 5}), ["model.encoder", "hiden", "hidden"]),
        (ModelConfig(predictor={"name": "lstm", "context": 5}), ["model.predictor", "context", "embedding, hidden"]),
        (ModelConfig(joiner={"size": 5}), ["model.joiner", "size", "hidden"]),
    ],
    ids=["encoder", "option", "predictor", "joiner"],
)
def test_errors_name_the_part(config: ModelConfig, named: list[str]) -> None:
    with pytest.raises(UserError) as error:
        RNNT(config, FEATURES, TOKENIZER.size)
    assert all(word in str(error.value) for word in named)


def test_pricing_a_model_does_not_import_a_compiler() -> None:
    """torch draws normal numbers on its "meta" device by a function that imports its compiler: two seconds."""
    source = (
        "import sys; from qstudy.training.load import load_recognizer; from qstudy.training.price import price\n"
        "from qstudy.training.config import config_from_dict; from pathlib import Path\n"
        "load_recognizer(Path('sweeps/base/commands.qst'))\n"
        "priced = price(config_from_dict({'data': {'train': 'a', 'dev': 'b'}, 'policy': {'name': 'float'}}))\n"
        "print(priced.size_bytes > 0, 'torch._dynamo' in sys.modules)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", source], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "False"], done.stderr


def test_shapes_alone_are_those_of_the_model() -> None:
    with shapes_only():
        priced = RNNT(model_config(), FEATURES, TOKENIZER.size)
    built = RNNT(model_config(), FEATURES, TOKENIZER.size)
    assert priced.shapes() == built.shapes()
    assert all(parameter.is_meta for parameter in priced.parameters())
    assert not any(parameter.is_meta for parameter in built.parameters())
