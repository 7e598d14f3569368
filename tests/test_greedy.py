"""Greedy decoding: batches decode as their utterances do one by one, and both as a plain loop does."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import FEATURES, LSTM, STATELESS, TOKENIZER, filled, model_config, packed, speech, talkative

from qstudy.model import RNNT
from qstudy.quant.packed.model import fill_packed
from qstudy.recognize.greedy import MAX_LABELS_PER_FRAME, greedy, search_in_torch, start
from qstudy.recognize.greedy_program import greedy_program

MODELS = {name: talkative(model_config(predictor)) for name, predictor in (("lstm", LSTM), ("stateless", STATELESS))}
PREDICTORS = pytest.mark.parametrize("predictor", MODELS)


@torch.no_grad()
def plainly(model: RNNT, frames: torch.Tensor) -> list[int]:
    """Transducer decoding as textbooks write it: one utterance (T, .), one label at a time."""
    device = torch.device("cpu")
    vector, state = model.predictor.advance(torch.zeros(1, dtype=torch.int64), model.predictor.start(1, device))
    labels = []
    for frame in frames:
        for _ in range(MAX_LABELS_PER_FRAME):
            best = int(model.joiner(frame[None, None], vector[None]).argmax())
            if best == 0:
                break
            labels.append(best)
            vector, state = model.predictor.advance(torch.tensor([best]), state)
    return labels


def encoded(model: RNNT, batch: int, seed: int = 0) -> torch.Tensor:
    with torch.no_grad():
        features = speech(batch, 60, seed)
        return model.encoder(features, torch.full((batch,), 60))[0]


@PREDICTORS
@settings(max_examples=10)
@given(lengths=st.lists(st.integers(0, 15), min_size=1, max_size=6), seed=st.integers(0, 20))
def test_batched_is_one_by_one_is_plain(predictor: str, lengths: list[int], seed: int) -> None:
    model = MODELS[predictor]
    frames = encoded(model, len(lengths), seed)
    together = greedy(model, frames, torch.tensor(lengths)).hypotheses
    for index, length in enumerate(lengths):
        alone = greedy(model, frames[index : index + 1, :length], torch.tensor([length])).hypotheses if length else [[]]
        assert together[index] == alone[0] == plainly(model, frames[index, :length])


@PREDICTORS
def test_the_model_has_something_to_say(predictor: str) -> None:
    """What the other tests rest on: utterances get different texts, of several labels, with blanks between."""
    model = MODELS[predictor]
    hypotheses = greedy(model, encoded(model, 8), torch.full((8,), 15)).hypotheses
    assert len({tuple(labels) for labels in hypotheses}) == 8
    assert all(len(labels) < 15 * MAX_LABELS_PER_FRAME for labels in hypotheses)
    assert len({label for labels in hypotheses for label in labels}) > 10


@PREDICTORS
@settings(max_examples=10)
@given(cut=st.integers(0, 15), seed=st.integers(0, 20))
def test_in_two_parts(predictor: str, cut: int, seed: int) -> None:
    model = MODELS[predictor]
    frames = encoded(model, 3, seed)
    whole = greedy(model, frames, torch.full((3,), 15)).hypotheses
    state = greedy(model, frames[:, :cut], torch.full((3,), cut)) if cut else None
    rest = torch.full((3,), 15 - cut)
    assert (greedy(model, frames[:, cut:], rest, state) if cut < 15 else state).hypotheses == whole  # type: ignore[union-attr]


POLICIES = {
    "uniform": {"name": "native_int", "layers": {"*": {"weight": 4, "activation": 8}}},
    "codebook": {"name": "s8bqat", "layers": {"*": {"weight": 4, "activation": 8}}},
}


def test_a_model_that_is_packed_anew_is_searched_anew() -> None:
    config, model = model_config(), talkative()
    device = packed(model, filled(model, POLICIES["uniform"]), config)
    fill_packed(loaded := talkative(seed=9), device)
    first = greedy_program(loaded.eval())
    fill_packed(loaded, device)
    assert greedy_program(loaded) is not first


@pytest.mark.parametrize("joiner", ["additive", "multiplicative"])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_compiled_search_finds_what_torchs_finds(policy: str, joiner: str) -> None:
    config = replace(model_config(), joiner={"name": joiner, "hidden": 12})
    model = talkative(config)
    packed_model = packed(model, filled(model, POLICIES[policy]), config)
    loaded = RNNT(config, FEATURES, TOKENIZER.size)
    fill_packed(loaded.eval(), packed_model)
    assert greedy_program(model) is None
    assert greedy_program(loaded) is greedy_program(loaded) is not None
    frames, lengths = encoded(loaded, 40), torch.arange(40) % 16
    compiled = greedy(loaded, frames, lengths)
    with torch.no_grad():
        state = start(loaded, 40, torch.device("cpu"))
        plain = search_in_torch(loaded, loaded.joiner.encoder(frames), lengths, state)
    assert compiled.hypotheses == plain.hypotheses
    said = {tuple(labels) for labels in plain.hypotheses}
    assert len(said) > 8
    for found, expected in zip(
        (compiled.predicted, *compiled.predictor), (plain.predicted, *plain.predictor), strict=True
    ):
        assert torch.equal(found, expected)


def test_a_frame_has_at_most_so_many_labels() -> None:
    model = talkative()
    with torch.no_grad():
        model.joiner.output.bias[0] = -1e9  # never blank
    lengths = torch.tensor([4, 0, 7])
    hypotheses = greedy(model, encoded(model, 3), lengths).hypotheses
    assert [len(labels) for labels in hypotheses] == [MAX_LABELS_PER_FRAME * length for length in lengths.tolist()]


def test_nothing_but_blanks() -> None:
    model = talkative()
    with torch.no_grad():
        model.joiner.output.bias[0] = 1e9
    assert greedy(model, encoded(model, 2), torch.tensor([15, 3])).hypotheses == [[], []]


def test_what_lies_behind_the_end_does_not_matter() -> None:
    model: Any = MODELS["lstm"]
    frames = encoded(model, 2)
    garbage = frames.clone()
    garbage[0, 9:] = torch.nan
    lengths = torch.tensor([9, 15])
    assert greedy(model, garbage, lengths).hypotheses == greedy(model, frames, lengths).hypotheses
