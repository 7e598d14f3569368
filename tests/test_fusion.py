"""Fusion: what language models add to scores, in every search, and what comes with none of them."""

import itertools
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_beam import ANY, MODELS, SEARCHES, Three, assert_same, encoded, found, labels
from torch import Tensor

from qstudy.errors import UserError
from qstudy.files import read_json
from qstudy.model.language import LanguageModel, LanguageState, LSTMLanguageModel
from qstudy.model.ngram import NgramLanguageModel
from qstudy.quant.layers import quantizable
from qstudy.recognize.alignment_synchronous import AlignmentSynchronous
from qstudy.recognize.beam import BeamSearch
from qstudy.recognize.decoder import Hypothesis
from qstudy.recognize.fusion import LEAST, Fusion
from qstudy.recognize.options import Decoding, FusionSettings, load_fusion, save_fusion
from qstudy.recognize.perplexity import log_likelihoods
from qstudy.recognize.time_synchronous import TimeSynchronous
from qstudy.settings import LanguageModelConfig
from qstudy.training.kneser_ney import estimate


class Trigram(LanguageModel):
    """Any probabilities of a label behind the two before it; the state is the last label."""

    def __init__(self, labels: int, seed: int) -> None:
        super().__init__()
        self.labels = labels
        generator = torch.Generator().manual_seed(seed)
        self.table = (3 * torch.randn(labels, labels, labels, generator=generator)).log_softmax(-1)

    def start(self, hypotheses: int, device: torch.device) -> LanguageState:
        return (torch.zeros(1, hypotheses, dtype=torch.int64, device=device),)

    def advance(self, labels: Tensor, state: LanguageState) -> tuple[Tensor, LanguageState]:
        return self.table[state[0][0], labels], (labels.unsqueeze(0),)

    def log_probability(self, text: list[int]) -> float:
        """Of a whole text, its end included."""
        padded = [0, 0, *text, 0]
        return sum(float(self.table[a, b, c]) for a, b, c in zip(padded, padded[1:], padded[2:], strict=False))


BOTH = {
    "time": lambda fusion: TimeSynchronous(60, fusion, max_labels=2),
    "alignment": lambda fusion: AlignmentSynchronous(600, fusion, max_labels=4),
}
WEIGHTS = {
    "shallow": (0.7, 0.0, 0.0),
    "density ratio": (0.7, 0.4, 0.0),
    "with a reward": (0.7, 0.4, 0.9),
    "the reward alone": (0.0, 0.0, -1.1),
}


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("search", BOTH)
def test_scores_are_the_formula(search: str, weights: tuple[float, float, float]) -> None:
    """In a beam that holds every hypothesis: those of the transducer alone, and what models say of whole texts."""
    model, external, source = Three(2).eval(), Trigram(3, 1), Trigram(3, 2)
    frames = encoded(model, 1)[:, :2]
    fusion = Fusion(external, weights[0], source, weights[1], weights[2])
    [alone], [fused] = (found(BOTH[search](each), model, frames, [2]) for each in (None, fusion))
    plain = {tuple(each.labels): each.score for each in alone}
    several = [each for each in fused if tuple(each.labels) in plain and len(each.labels) <= 4]
    assert len(several) >= 30
    for each in several:
        texts = weights[0] * external.log_probability(each.labels) - weights[1] * source.log_probability(each.labels)
        expected = plain[tuple(each.labels)] + texts + weights[2] * len(each.labels)
        assert each.score == pytest.approx(expected, abs=1e-4)
    assert [each.score for each in fused] == sorted((each.score for each in fused), reverse=True)


def two_kinds(labels: int) -> tuple[LSTMLanguageModel, NgramLanguageModel]:
    """An LSTM, whose state has two parts, and trigrams, whose state is a number."""
    torch.manual_seed(5)
    external = LSTMLanguageModel(labels, LanguageModelConfig(embedding=6, hidden=10, layers=2)).eval()
    with torch.no_grad():
        for layer in quantizable(external).values():
            for matrix in layer.matrices():
                matrix.mul_(5.0)
    generator = random.Random(5)
    texts = [[generator.randrange(1, labels) for _ in range(generator.randrange(6))] for _ in range(30)]
    return external, NgramLanguageModel(estimate(texts, labels, 3)).eval()


@pytest.mark.parametrize("search", BOTH)
@torch.no_grad()
def test_an_lstm_beside_n_grams_scores_as_each_scores_whole_texts(search: str) -> None:
    model, (external, source) = Three(2).eval(), two_kinds(3)
    frames = encoded(model, 1)[:, :2]
    [alone], [fused] = (
        found(BOTH[search](each), model, frames, [2]) for each in (None, Fusion(external, 0.7, source, 0.4, 0.9))
    )
    plain = {tuple(each.labels): each.score for each in alone}
    several = [each for each in fused if tuple(each.labels) in plain and len(each.labels) <= 4]
    assert len(several) >= 30
    for each in several:
        text = torch.tensor([[*each.labels]], dtype=torch.int64)
        rows = external(text)[0].log_softmax(-1)  # of all places at once
        heard = float(rows.gather(1, torch.tensor([[*each.labels, 0]]).T).sum())
        expected = plain[tuple(each.labels)] + 0.7 * heard - 0.4 * float(log_likelihoods(source, [each.labels]))
        assert each.score == pytest.approx(expected + 0.9 * len(each.labels), abs=1e-4)
    assert len({round(each.score, 2) for each in several}) > 20


@ANY
@settings(max_examples=5)
@given(lengths=st.lists(st.integers(0, 15), min_size=2, max_size=4), seed=st.integers(0, 20))
def test_a_batch_with_an_lstm_beside_n_grams_is_its_utterances(search: str, lengths: list[int], seed: int) -> None:
    model = MODELS["lstm"][0]
    external, source = two_kinds(model.joiner.output.out_features)
    decoder: BeamSearch = SEARCHES[search](4)
    decoder.fusion = Fusion(external, 0.6, source, 0.3, 0.5)
    frames = encoded(model, len(lengths), seed)
    whole = found(decoder, model, frames, lengths)
    for index, length in enumerate(lengths):
        alone = found(decoder, model, frames[index : index + 1, :length], [length])
        assert_same(alone, whole[index : index + 1])


@ANY
def test_a_weight_of_zero_is_no_fusion(search: str) -> None:
    model = MODELS["lstm"][0]
    frames = encoded(model, 3)
    expected = found(SEARCHES[search](4), model, frames, [15, 4, 9])
    decoder: BeamSearch = SEARCHES[search](4)
    decoder.fusion = Fusion(Trigram(28, 1), 0.0, Trigram(28, 2), 0.0)
    assert found(decoder, model, frames, [15, 4, 9]) == expected


@ANY
def test_a_strong_language_model_has_its_way_in_pieces_too(search: str) -> None:
    model = MODELS["lstm"][0]
    frames = encoded(model, 2)
    size = model.joiner.output.out_features
    decoder: BeamSearch = SEARCHES[search](4)
    without = found(decoder, model, frames, [15, 9])
    decoder.fusion = Fusion(Trigram(size, 1), 2.0, length_reward=4.0)
    whole = found(decoder, model, frames, [15, 9])
    assert labels(whole) != labels(without)
    state = None
    for begin, end in itertools.pairwise((0, 2, 3, 9, 15)):
        chunk = (torch.tensor([15, 9]) - begin).clamp(0, end - begin)
        state = decoder.accept(model, frames[:, begin:end], chunk, state)
    assert labels(decoder.finish(model, state)) == labels(whole)


@pytest.mark.parametrize("none", [0.0, 1e-99], ids=["zero", "as n-gram files write it"])
def test_what_the_source_model_holds_impossible_gets_no_bonus(none: float) -> None:
    """The more likely a label is in the source, the more it loses; of an impossible one there is nothing to divide."""
    source = Trigram(4, 0)
    source.table[:] = torch.tensor([0.5, 0.5 - 1e-9, 1e-9, none], dtype=torch.float64).log().float()
    fusion = Fusion(source=source, source_weight=0.5)
    [added], _ = fusion.advance(torch.zeros(1, dtype=torch.int64), fusion.start(1, torch.device("cpu")))
    assert added.tolist() == pytest.approx([0.35, 0.35, 10.36, 0.0], abs=0.01)


def test_what_the_external_model_holds_impossible_comes_last_but_stays_a_number() -> None:
    external = Trigram(3, 0)
    external.table[:] = torch.tensor([0.5, 0.5, 0.0]).log()
    fusion = Fusion(external, 0.5)
    [added], _ = fusion.advance(torch.zeros(1, dtype=torch.int64), fusion.start(1, torch.device("cpu")))
    assert added.tolist() == pytest.approx([-0.35, -0.35, 0.5 * LEAST], abs=0.01)


@ANY
@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_language_models_that_give_no_numbers_are_named(search: str, odd: float) -> None:
    model = MODELS["lstm"][0]
    external, source = (Trigram(model.joiner.output.out_features, seed) for seed in (1, 2))
    source.name = "source.qst"
    decoder: BeamSearch = SEARCHES[search](4)
    decoder.fusion = Fusion(external, 0.5, source, 0.2)
    found(decoder, model, encoded(model, 2), [15, 9])
    source.table[1:] = odd
    with pytest.raises(UserError, match=r"source\.qst gives log-probabilities that are not numbers"):
        found(decoder, model, encoded(model, 2), [15, 9])


def test_an_empty_text_ends_as_the_language_model_says() -> None:
    model, external = MODELS["lstm"][0], Trigram(MODELS["lstm"][0].joiner.output.out_features, 1)
    for search in BOTH.values():
        [[hypothesis]] = found(search(Fusion(external, 0.5)), model, encoded(model, 1), [0])
        assert hypothesis == Hypothesis([], pytest.approx(0.5 * external.log_probability([])), [])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"beam": 4}, "beam: greedy search has none; use --decode beam"),
        ({"lm": Path("a.qst"), "lm_weight": 0.3}, "lm: greedy search has none"),
        ({"decode": "beam", "lm": Path("a.qst")}, "lm_weight: it is missing"),
        ({"decode": "beam", "source_weight": 0.2}, "source_weight: there is no language model"),
        ({"decode": "beam", "search": "alignment", "prune": "frame"}, "prune: only a search by time"),
        ({"decode": "beam", "fusion": Path("f.json"), "length_reward": 1.0}, "length_reward: the file of --fusion"),
        ({"decode": "beam", "lm_weight": -0.5}, "lm_weight: -0.5 should be greater than or equal to 0"),
        ({"decode": "beam", "max_labels": 0}, "max_labels: 0 should be greater"),
        ({"decode": "beams"}, "decode: 'beams' is not one of greedy, beam"),
    ],
)
def test_bad_combinations(options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Decoding(**options)


def test_settings_in_a_file_name_models_from_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = FusionSettings(Path("lm/a.arpa"), 0.5, length_reward=0.25)
    save_fusion(Path("out/f.json"), settings, {"wer": 0.5})
    assert read_json(tmp_path / "out" / "f.json") == {
        "lm": "../lm/a.arpa",
        "lm_weight": 0.5,
        "length_reward": 0.25,
        "found": {"wer": 0.5},
    }
    monkeypatch.chdir("out")
    loaded = load_fusion(Path("f.json"))
    assert loaded.lm is not None
    assert loaded.lm.resolve() == tmp_path / "lm" / "a.arpa"
    assert (loaded.lm_weight, loaded.source_lm, loaded.length_reward) == (0.5, None, 0.25)
    Path("f.json").write_text('{"lm": "a.arpa"}')
    with pytest.raises(UserError, match=r"f\.json: lm_weight"):
        load_fusion(Path("f.json"))
