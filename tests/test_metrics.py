"""Metrics: against jiwer's own rates, by hand, and the interval's coverage."""

from collections.abc import Callable

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstudy.data import metrics
from qstudy.data.metrics import ErrorCounts, bootstrap_interval, character_errors, utterance_errors, word_errors

TEXTS = st.lists(st.sampled_from(["one", "two", "three", "o", "tree"]), max_size=6).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8)


@given(PAIRS)
def test_rates_are_jiwers(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = map(list, zip(*pairs, strict=True))
    assert word_errors(references, hypotheses).rate == jiwer.wer(references, hypotheses)
    assert character_errors(references, hypotheses).rate == jiwer.cer(references, hypotheses)


@given(PAIRS)
def test_utterances_add_up(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = map(list, zip(*pairs, strict=True))
    errors, words = utterance_errors(references, hypotheses)
    whole = word_errors(references, hypotheses)
    assert (sum(errors), sum(words)) == (whole.errors, whole.reference)
    alone = [word_errors([reference], [hypothesis]).errors for reference, hypothesis in pairs]
    assert errors == alone


def test_counts_by_hand() -> None:
    counts = word_errors(["a b c", "", "d e", "f"], ["a x c", "y", "e", ""])
    assert counts == ErrorCounts(substitutions=1, insertions=1, deletions=2, reference=6)
    assert counts.rate == 4 / 6
    assert character_errors(["ab c"], ["abc"]) == ErrorCounts(0, 0, 1, 4)


def test_nothing_said() -> None:
    assert word_errors([], []).rate == 0
    assert utterance_errors([], []) == ([], [])
    assert word_errors([""], [""]).rate == 0
    assert word_errors([""], ["a b"]).rate == 2
    assert bootstrap_interval([], []) == (0, 0)
    assert bootstrap_interval(["", ""], ["", ""]) == (0, 0)


def test_the_interval_of_one_utterance_has_a_width() -> None:
    """Wilson's: both ends are the rates that lie 1.96 of their own standard deviations from what was counted."""
    low, high = bootstrap_interval(["a b c d"], ["a b x d"])
    assert 0 < low < 0.25 < high < 1
    for end in (low, high):
        assert abs(end - 0.25) == pytest.approx(1.96 * (end * (1 - end) / 4) ** 0.5)
    assert bootstrap_interval(["a"], ["b c d"])[1] == pytest.approx(1)


def test_without_errors_the_interval_still_has_an_upper_end() -> None:
    """Where every word is right, in one of forty such sets they would be at that rate."""
    for words in (1, 20, 500):
        low, high = bootstrap_interval(["a"] * words, ["a"] * words, groups=[0, 1] * (words // 2) or None)
        assert low == 0
        assert (1 - high) ** words == pytest.approx(0.025)


@pytest.mark.parametrize("metric", [word_errors, character_errors, utterance_errors, bootstrap_interval])
@pytest.mark.parametrize("counts", [(2, 1), (1, 2), (1, 0), (0, 1)], ids=str)
def test_one_hypothesis_per_reference(metric: Callable[..., object], counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="lengths must match"):
        metric(["a"] * counts[0], ["a"] * counts[1])


def test_interval_covers_the_true_rate() -> None:
    generator = np.random.default_rng(1)
    inside = 0
    for trial in range(60):
        wrong = generator.random((80, 5)) < 0.1
        hypotheses = [" ".join("x" if w else "a" for w in row) for row in wrong]
        low, high = bootstrap_interval(["a a a a a"] * 80, hypotheses, seed=trial, samples=200)
        inside += low <= 0.1 <= high
        assert low <= wrong.mean() <= high
    assert 50 <= inside < 60  # 95 % of 60 is 57


def test_an_interval_needs_draws() -> None:
    with pytest.raises(ValueError, match="samples is 0"):
        bootstrap_interval(["a"], ["a"], samples=0)


def test_interval_is_deterministic_and_independent_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    references, hypotheses = ["a b", "c d e", "f"] * 5, ["a x", "c d e", ""] * 5
    whole = bootstrap_interval(references, hypotheses, seed=3)
    monkeypatch.setattr(metrics, "_BLOCK", 100)
    assert bootstrap_interval(references, hypotheses, seed=3) == whole
    assert bootstrap_interval(references, hypotheses, seed=4, samples=50) != whole
