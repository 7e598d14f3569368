"""Beam searches: held against torchaudio's, every alignment there is, greedy search, and themselves in pieces."""

import itertools
import math
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import FEATURES, LSTM, STATELESS, TOKENIZER, filled, model_config, packed, speech, talkative

from benchmarks.beam import torchaudio_search
from qstudy.errors import UserError
from qstudy.loss.rnnt import rnnt_loss
from qstudy.model import RNNT
from qstudy.recognize import beam
from qstudy.recognize.alignment_synchronous import AlignmentSynchronous
from qstudy.recognize.beam import BeamSearch
from qstudy.recognize.decoder import Hypothesis
from qstudy.recognize.greedy import greedy
from qstudy.recognize.recognizer import recognizer_from_packed
from qstudy.recognize.time_synchronous import TimeSynchronous

MODELS = {
    name: [talkative(model_config(predictor), seed) for seed in range(1, 4)]
    for name, predictor in (("lstm", LSTM), ("stateless", STATELESS))
}
PREDICTORS = pytest.mark.parametrize("predictor", MODELS)
SEARCHES = {
    "time": lambda beam: TimeSynchronous(beam),
    "frame": lambda beam: TimeSynchronous(beam, prune="frame"),
    "modified": lambda beam: TimeSynchronous(beam, max_labels=1),
    "alignment": lambda beam: AlignmentSynchronous(beam),
}
ANY = pytest.mark.parametrize("search", SEARCHES)


@torch.no_grad()
def encoded(model: RNNT, batch: int, seed: int = 0) -> torch.Tensor:
    """Encoder frames (batch, 15, .)."""
    return model.encoder(speech(batch, 60, seed), torch.full((batch,), 60))[0]


def found(search: BeamSearch, model: RNNT, frames: torch.Tensor, lengths: list[int]) -> list[list[Hypothesis]]:
    return search.finish(model, search.accept(model, frames, torch.tensor(lengths)))


def labels(hypotheses: list[list[Hypothesis]]) -> list[list[list[int]]]:
    return [[each.labels for each in one] for one in hypotheses]


def scores(hypotheses: list[Hypothesis]) -> torch.Tensor:
    return torch.tensor([each.score for each in hypotheses])


@PREDICTORS
@pytest.mark.parametrize(("beam", "most"), [(2, 8), (4, 1), (8, 3), (8, 8)])
def test_as_torchaudio(predictor: str, beam: int, most: int) -> None:
    for model in MODELS[predictor]:
        frames = encoded(model, 2)
        ours = found(TimeSynchronous(beam, max_labels=most, prune="frame"), model, frames, [15, 11])
        for hypotheses, one, length in zip(ours, frames, (15, 11), strict=True):
            theirs = torchaudio_search(model, one[:length], TOKENIZER.size, beam, most)
            assert [each.labels for each in hypotheses] == [each.labels for each in theirs]
            torch.testing.assert_close(scores(hypotheses), scores(theirs), rtol=1e-4, atol=1e-4)


class Three(RNNT):
    """A transducer of two labels and the blank."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        super().__init__(model_config(), FEATURES, 3)


def alignments(model: RNNT, frames: torch.Tensor, most: int) -> dict[tuple[int, ...], float]:
    """The probability of every label sequence over frames (T, .), summed over all alignments with at most so many
    labels in a frame, one alignment at a time."""
    total: dict[tuple[int, ...], float] = {}

    @cache
    def probabilities(t: int, so_far: tuple[int, ...]) -> list[float]:
        vectors = model.predictor(torch.tensor([so_far], dtype=torch.int64))[:, -1:]
        return model.joiner(frames[None, t : t + 1], vectors)[0, 0, 0].double().softmax(-1).tolist()

    def follow(t: int, emitted: int, so_far: tuple[int, ...], probability: float) -> None:
        if t == len(frames):
            total[so_far] = total.get(so_far, 0.0) + probability
            return
        blank, *others = probabilities(t, so_far)
        follow(t + 1, 0, so_far, probability * blank)
        if emitted < most:
            for label, each in enumerate(others, 1):
                follow(t, emitted + 1, (*so_far, label), probability * each)

    follow(0, 0, (), 1.0)
    return total


@torch.no_grad()
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_that_holds_all_finds_the_sum_over_all_alignments(seed: int) -> None:
    model = Three(seed).eval()
    frames = encoded(model, 1, seed)[:, :3]
    expected = alignments(model, frames[0], most=2)
    assert len(expected) == 2**7 - 1
    for prune in ("expansion", "frame"):
        [hypotheses] = found(TimeSynchronous(200, max_labels=2, prune=prune), model, frames, [3])
        assert {tuple(each.labels) for each in hypotheses} == set(expected)
        for each in hypotheses:
            assert each.score == pytest.approx(torch.tensor(expected[tuple(each.labels)]).log().item(), abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("search", [TimeSynchronous(200, max_labels=3), AlignmentSynchronous(200, max_labels=3)])
def test_scores_are_those_of_the_loss(search: BeamSearch) -> None:
    """Over sequences short enough that any frame may have all of their labels."""
    model = Three(0).eval()
    frames = encoded(model, 1)[:, :2]
    checked = [each for each in found(search, model, frames, [2])[0] if 0 < len(each.labels) <= 3]
    assert len(checked) == 2 + 4 + 8
    for each in checked:
        targets = torch.tensor([each.labels])
        lattice = model.joiner(frames, model.predictor(targets))
        lengths = torch.tensor([2]), torch.tensor([len(each.labels)])
        assert each.score == pytest.approx(-rnnt_loss(lattice, targets, *lengths, blank=0).item(), abs=1e-4)


def likeliest(model: RNNT, frames: torch.Tensor, most: int) -> dict[tuple[int, ...], list[int]]:
    """The frames of the labels in the most probable alignment of every label sequence over frames (T, .)."""
    best: dict[tuple[int, ...], tuple[float, list[int]]] = {}

    @cache
    def log_probs(t: int, so_far: tuple[int, ...]) -> list[float]:
        vectors = model.predictor(torch.tensor([so_far], dtype=torch.int64))[:, -1:]
        return model.joiner(frames[None, t : t + 1], vectors)[0, 0, 0].double().log_softmax(-1).tolist()

    def follow(t: int, so_far: tuple[int, ...], times: list[int], score: float) -> None:
        if t == len(frames):
            best[so_far] = max(best.get(so_far, (-math.inf, [])), (score, times))
            return
        for label, each in enumerate(log_probs(t, so_far)):
            if label == 0:
                follow(t + 1, so_far, times, score + each)
            elif len(so_far) < most:
                follow(t, (*so_far, label), [*times, t], score + each)

    follow(0, (), [], 0.0)
    return {labels: times for labels, (_, times) in best.items()}


@torch.no_grad()
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("search", [TimeSynchronous(400, max_labels=3), AlignmentSynchronous(900, max_labels=3)])
def test_times_are_those_of_the_likeliest_alignment(search: BeamSearch, seed: int) -> None:
    """In a beam that holds all; of texts that any frame may have all labels of. Some alignment of each text is the
    second to arrive, or the third."""
    model = Three(seed).eval()
    frames = encoded(model, 1, seed)[:, :4]
    expected = likeliest(model, frames[0], most=3)
    checked = [each for each in found(search, model, frames, [4])[0] if len(each.labels) <= 3]
    assert len(checked) == 1 + 2 + 4 + 8
    assert {tuple(each.labels): each.frames for each in checked} == expected


@PREDICTORS
@pytest.mark.parametrize("search", [TimeSynchronous(1), AlignmentSynchronous(1)], ids=["time", "alignment"])
@settings(max_examples=15)
@given(lengths=st.lists(st.integers(0, 15), min_size=1, max_size=5), seed=st.integers(0, 20))
def test_a_beam_of_one_is_greedy(predictor: str, search: BeamSearch, lengths: list[int], seed: int) -> None:
    for model in MODELS[predictor]:
        frames = encoded(model, len(lengths), seed)
        expected = greedy(model, frames, torch.tensor(lengths)).hypotheses
        assert labels(found(search, model, frames, lengths)) == [[one] for one in expected]


@pytest.mark.parametrize("search", [TimeSynchronous(1), AlignmentSynchronous(1)], ids=["time", "alignment"])
def test_a_beam_of_one_is_greedy_where_frames_are_full(search: BeamSearch) -> None:
    model = talkative()
    with torch.no_grad():
        model.joiner.output.bias[0] = -1e9  # never blank
    frames = encoded(model, 2)
    expected = greedy(model, frames, torch.tensor([4, 7])).hypotheses
    assert [len(one) for one in expected] == [4 * 8, 7 * 8]
    assert labels(found(search, model, frames, [4, 7])) == [[one] for one in expected]


SHIFTS = (0.0, 1e-6, -1e-6)
"""As products of another number of rows round: where a beam's last place hangs on it, all that follows does."""


@PREDICTORS
@ANY
@example(cuts=[], lengths=[1, 3], seed=1)  # in the second frame two hypotheses are as likely
@example(cuts=[7, 8], lengths=[0, 8], seed=16)  # two hypotheses whose scores differ by less than a rounding
@settings(max_examples=5)
@given(
    cuts=st.lists(st.integers(0, 15), max_size=4),
    lengths=st.lists(st.integers(0, 15), min_size=1, max_size=3),
    seed=st.integers(0, 20),
)
def test_pieces_are_the_whole_and_a_batch_is_its_utterances(
    predictor: str, search: str, cuts: list[int], lengths: list[int], seed: int
) -> None:
    model, decoder = MODELS[predictor][0], SEARCHES[search](4)
    frames = encoded(model, len(lengths), seed)
    whole = found(decoder, model, frames, lengths)
    state = None
    for begin, end in pieces(cuts):
        chunk = (torch.tensor(lengths) - begin).clamp(0, end - begin)
        state = decoder.accept(model, frames[:, begin:end], chunk, state)
    assert_same(decoder.finish(model, state), whole)
    for index, length in enumerate(lengths):
        own = frames[index : index + 1, :length]
        alone = [found(decoder, model, own * (1 + shift), [length]) for shift in SHIFTS]
        assert any(is_same(each, whole[index : index + 1]) for each in alone)


def assert_same(some: list[list[Hypothesis]], others: list[list[Hypothesis]]) -> None:
    """The same hypotheses. Rounding alone may decide which of two equally likely ones comes in last: of an utterance
    one may differ, not the best, if it is as likely to seven digits."""
    for one, other in zip(some, others, strict=True):
        torch.testing.assert_close(scores(one), scores(other), rtol=1e-5, atol=1e-5)
        pairs = list(zip(one, other, strict=True))
        tied = [(mine.score, theirs.score) for mine, theirs in pairs if mine.labels != theirs.labels]
        assert len(tied) <= 1
        assert all(mine == pytest.approx(theirs, rel=1e-7) for mine, theirs in tied)
        assert all(mine.labels == theirs.labels for mine, theirs in pairs[:1])


def is_same(some: list[list[Hypothesis]], others: list[list[Hypothesis]]) -> bool:
    try:
        assert_same(some, others)
    except AssertionError:
        return False
    return True


def pieces(cuts: list[int]) -> Iterator[tuple[int, int]]:
    edges = sorted({0, *cuts, 15})
    return itertools.pairwise(edges)


@PREDICTORS
def test_the_models_have_something_to_say(predictor: str) -> None:
    """What the other tests rest on: wider beams find better hypotheses, and different ones for each utterance."""
    for search in (TimeSynchronous, AlignmentSynchronous):
        narrow, wide = (
            [found(search(beam), model, encoded(model, 6), [15] * 6) for model in MODELS[predictor]] for beam in (1, 8)
        )
        assert len({tuple(one[0].labels) for model in wide for one in model}) >= 6
        pairs = [
            (one[0].score, other[0].score)
            for each in zip(narrow, wide, strict=True)
            for one, other in zip(*each, strict=True)
        ]
        assert sum(other - one > 1e-3 for one, other in pairs) >= 6


@ANY
def test_hypotheses_are_distinct_and_in_order_with_times(search: str) -> None:
    model = MODELS["lstm"][0]
    for hypotheses, length in zip(
        found(SEARCHES[search](8), model, encoded(model, 3), [15, 9, 1]), (15, 9, 1), strict=True
    ):
        assert len({tuple(each.labels) for each in hypotheses}) == len(hypotheses)
        assert 4 <= len(hypotheses) <= 8  # fewer where some became one
        assert scores(hypotheses).tolist() == sorted(scores(hypotheses).tolist(), reverse=True)
        for each in hypotheses:
            assert len(each.frames) == len(each.labels)
            assert each.frames == sorted(each.frames)
            assert all(0 <= frame < length for frame in each.frames)


@ANY
def test_labels_that_no_hypothesis_has_are_let_go(search: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream may last for days. What is heard does not depend on when they go."""
    model, decoder, lengths = MODELS["lstm"][0], SEARCHES[search](4), torch.tensor([150, 33, 0])
    frames = encoded(model, 3).tile(1, 10, 1)
    heard, most = [], []
    for room in (10**9, 0):
        monkeypatch.setattr(beam, "ROOM", room)
        state, nodes = None, []
        for begin in range(0, 150, 10):
            chunk = (lengths - begin).clamp(0, 10)
            state = decoder.accept(model, frames[:, begin : begin + 10], chunk, state)
            nodes.append(len(state.tree.parents))
        heard.append(decoder.finish(model, state))
        most.append(max(nodes))
    assert heard[0] == heard[1]
    assert most[1] < most[0] / 2
    assert most[1] > max(len(each.labels) for one in heard[0] for each in one)


@ANY
def test_a_beam_wider_than_all_there_is(search: str) -> None:
    model = Three(1).eval()
    [hypotheses, nothing] = found(SEARCHES[search](50), model, encoded(model, 2), [1, 0])
    most = 1 if search == "modified" else 8
    assert len(hypotheses) == min(2 ** (most + 1) - 1, 50)
    assert nothing == [Hypothesis([], 0.0, [])]


@ANY
def test_no_utterance_has_a_frame(search: str) -> None:
    model, decoder = MODELS["lstm"][0], SEARCHES[search](4)
    assert labels(found(decoder, model, encoded(model, 2), [0, 0])) == [[[]], [[]]]
    assert labels(decoder.decode(model, torch.zeros(2, 1, 8), torch.tensor([1, 0]))) == [[[]], [[]]]


@ANY
@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_scores_that_are_not_numbers(search: str, odd: float) -> None:
    model = talkative()
    with torch.no_grad():
        model.joiner.output.bias[3] = odd
    with pytest.raises(UserError, match="scores are not numbers"):
        found(SEARCHES[search](4), model, encoded(model, 1), [15])


@ANY
def test_what_lies_behind_the_end_does_not_matter(search: str) -> None:
    model = MODELS["lstm"][0]
    frames = encoded(model, 2)
    garbage = frames.clone()
    garbage[0, 9:] = torch.nan
    decoder = SEARCHES[search](4)
    assert found(decoder, model, garbage, [9, 15]) == found(decoder, model, frames, [9, 15])


@ANY
@pytest.mark.parametrize(
    "policy",
    [
        {"name": "native_int", "layers": {"*": {"weight": 4, "activation": 8}}},
        {"name": "int4_e2e"},
        {"name": "ptq", "layers": {"*": {"weight": 4}}},
    ],
    ids=lambda policy: policy["name"],
)
@torch.no_grad()
def test_packed_models(search: str, policy: dict) -> None:
    """What integers serve is what was trained: the same hypotheses."""
    model = talkative()
    loaded = recognizer_from_packed(packed(model, filled(model, policy))).model
    first, second = (found(SEARCHES[search](4), each, encoded(each, 3), [15, 12, 3]) for each in (model, loaded))
    assert labels(first) == labels(second)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(scores(one), scores(other), rtol=1e-3, atol=1e-3)
