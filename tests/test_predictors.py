"""Predictors: what the weighted one computes, and that each of them learns, steps and packs."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import CLOSE, EXACT, batch, model_and_packed, model_of, require_same_integers, train
from tiny import TOKENIZER
from torch import Tensor
from torch.nn import functional as F

from qstudy.model import RNNT, ModelConfig
from qstudy.model.predictors import PREDICTORS, WeightedPredictor
from qstudy.recognize.greedy import greedy

pytestmark = pytest.mark.usefixtures("one_thread")  # small tensors
ENCODER = {"name": "lstm", "hidden": 16, "layers": 1, "stack": 2, "reduction": 2}
FORMS: dict[str, dict[str, Any]] = {
    "lstm": {"name": "lstm"},
    "lstm, tied": {"name": "lstm", "tied": True},
    "stateless, tied": {"name": "stateless", "tied": True},
    "weighted": {"name": "weighted"},
    "weighted, one label": {"name": "weighted", "context": 1, "heads": 1},
    "weighted, tied": {"name": "weighted", "context": 3, "heads": 2, "tied": True},
}
every_form = pytest.mark.parametrize("form", FORMS)


def config(form: str) -> ModelConfig:
    return ModelConfig(ENCODER, {"hidden": 16, "embedding": 12, **FORMS[form]}, {"hidden": 12})


def expected_vectors(predictor: WeightedPredictor, labels: list[int]) -> Tensor:
    """Equation 1 of the paper, head by head and position by position, for the state after `labels`."""
    positions = predictor.positions.weight.view(predictor.context, predictor.heads, -1)
    seen = [0] * predictor.context + labels
    rows = predictor.embedding(torch.tensor(seen[-predictor.context :]))
    total = torch.zeros(rows.shape[1])
    for head in range(predictor.heads):
        for place, row in enumerate(rows):
            total += (row @ positions[place, head]) * row
    averaged = total / (predictor.heads * predictor.context)
    layer = predictor.projection
    return F.layer_norm(F.silu(layer.weight @ averaged + layer.bias), (predictor.output_size,))


@pytest.mark.parametrize("tied", [False, True], ids=["apart", "tied"])
@given(labels=st.lists(st.integers(0, 8), max_size=7), context=st.integers(1, 4), heads=st.integers(1, 3))
@torch.no_grad()
def test_weights_are_dot_products_with_position_vectors(
    tied: bool, labels: list[int], context: int, heads: int
) -> None:
    predictor = WeightedPredictor(9, embedding=5, hidden=6, context=context, heads=heads, tied=tied)
    found = predictor(torch.tensor([labels], dtype=torch.int64))
    for count in range(len(labels) + 1):
        torch.testing.assert_close(found[0, count], expected_vectors(predictor, labels[:count]), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_older_labels_are_not_seen() -> None:
    predictor = WeightedPredictor(9, embedding=5, hidden=6, context=3)
    first, second = (predictor(torch.tensor([[old, 4, 5, 6]])) for old in (1, 2))
    assert torch.equal(first[:, 4], second[:, 4])
    assert not torch.equal(first[:, 3], second[:, 3])


@every_form
@settings(max_examples=8)
@given(labels=st.lists(st.integers(1, TOKENIZER.size - 1), max_size=9))
@torch.no_grad()
def test_steps_are_the_forward_pass(form: str, labels: list[int]) -> None:
    """In float, and in the integers of the packed model."""
    for model in MODELS[form]:
        targets = torch.tensor([labels, labels[::-1]], dtype=torch.int64).reshape(2, len(labels))
        whole = model.predictor(targets)
        assert whole.shape == (2, len(labels) + 1, model.predictor.output_size)
        state = model.predictor.start(2, torch.device("cpu"))
        for position in range(len(labels) + 1):
            label = targets[:, position - 1] if position else torch.zeros(2, dtype=torch.int64)
            vector, state = model.predictor.advance(label, state)
            torch.testing.assert_close(vector, whole[:, position], atol=1e-4, rtol=0)


def float_and_packed(form: str) -> tuple[RNNT, RNNT]:
    _, loaded, _ = model_and_packed(config(form), EXACT["native_int W4A8"])
    return model_of(config(form)), loaded


MODELS = {form: float_and_packed(form) for form in FORMS}


@torch.no_grad()
def hypotheses(model: RNNT) -> list[list[int]]:
    features, lengths, _ = batch()
    encoded, frames, _ = model.encoder(features, lengths)
    return greedy(model, encoded, frames).hypotheses


@every_form
@torch.no_grad()
def test_decoding_follows_the_best_alignment(form: str) -> None:
    """Teacher-forced with the labels that were decoded, each label wins at its frame, and then blank."""
    model = copy.deepcopy(MODELS[form][0])
    features, lengths, _ = batch()
    for index, found in enumerate(hypotheses(model)):
        assert found
        logits, frames, _ = model(features[index : index + 1], lengths[index : index + 1], torch.tensor([found]))
        best, place = logits[0].argmax(-1), 0
        for frame in range(int(frames)):
            emitted = 0
            while place < len(found) and best[frame, place] != 0 and emitted < 8:
                assert best[frame, place] == found[place]
                place, emitted = place + 1, emitted + 1
        assert place == len(found)


@every_form
def test_every_weight_learns_and_the_loss_falls(form: str) -> None:
    model = model_of(config(form))
    before = copy.deepcopy(model)
    first, last = train(model, 25)
    assert last < 0.6 * first
    for (name, old), new in zip(before.named_parameters(), model.parameters(), strict=True):
        assert not torch.equal(old, new), name


@pytest.mark.parametrize("policy", EXACT)
@every_form
def test_packed_integers_are_those_of_training(form: str, policy: str) -> None:
    model, loaded, _ = model_and_packed(config(form), EXACT[policy])
    assert require_same_integers(model, loaded, batch()) >= 6
    assert hypotheses(model.eval()) == hypotheses(loaded)


@pytest.mark.parametrize("policy", CLOSE)
@torch.no_grad()
def test_packed_is_close_elsewhere(policy: str) -> None:
    model, loaded, _ = model_and_packed(config("weighted"), CLOSE[policy])
    first, second = (each(*batch())[0] for each in (model, loaded))
    assert float((first - second).abs().mean()) < 0.01 * float(first.abs().mean())


@pytest.mark.parametrize("name", PREDICTORS)
def test_shapes_count_every_parameter(name: str) -> None:
    for tied in (False, True):
        predictor = {"name": name, "hidden": 16, "embedding": 12, "tied": tied}
        model = model_of(ModelConfig(ENCODER, predictor, {"hidden": 12}))
        shapes = [shape for shape in model.shapes() if shape.kind != "constant"]
        doubled = sum(shape.vectors for shape in shapes if shape.kind == "lstm")  # torch keeps two biases
        count = sum(parameter.numel() for parameter in model.parameters())
        assert sum(shape.parameters for shape in shapes) == count - doubled
        assert all(shape.per_label > 0 for shape in shapes if shape.name.startswith("predictor."))
