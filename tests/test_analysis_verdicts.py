"""Differences between settings, and what they show."""

import tempfile
from pathlib import Path
from typing import Any

import analysis_study as made
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.differences import DRAWS, Difference, difference, same_seeds
from analysis.study import Study
from analysis.verdicts import LEVEL, OPEN, REFUTED, SHOWN, Verdict, caution, not_worse, verdicts


def record(name: str, errors: list[int], words: list[int], **more: Any) -> dict[str, Any]:
    scores = {"test": {"wer": sum(errors) / sum(words)}}
    edits = {"test": {"errors": " ".join(map(str, errors)), "words": " ".join(map(str, words))}}
    made_by = {"run": name, "policy": "ptq", "state": "complete", "study": "made", "config": {"name": name}}
    return {**made_by, "metrics": scores, "utterances": edits, **more}


def pair(*records: dict[str, Any]) -> tuple[Study, pd.DataFrame, pd.DataFrame]:
    """The study of two settings, `a` and `b`, and the runs of each."""
    with tempfile.TemporaryDirectory() as folder:
        study = made.study(Path(folder), list(records))
    return study, *(study.trials[study.trials.run.str.startswith(name)] for name in "ab")


counts = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 6)), min_size=1, max_size=30)


@settings(max_examples=25, deadline=None)
@given(counts)
def test_the_difference_of_two_runs_is_that_of_their_errors(drawn: list[tuple[int, int, int]]) -> None:
    first, second, words = (list(column) for column in zip(*drawn, strict=True))
    study, mine, theirs = pair(record("a", first, words), record("b", second, words))
    there, back, word = difference(study, mine, theirs), difference(study, theirs, mine), 1 / sum(words)
    ends = (pytest.approx(-back.high, abs=2 * word), pytest.approx(-back.low, abs=2 * word))
    assert (there.value, there.low, there.high) == (-back.value, *ends)
    none = difference(study, mine, mine)
    assert none.value == 0 < none.high <= 4 * word  # one error more either way, as often as chance has it


def test_the_interval_covers_the_true_difference() -> None:
    dice = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        hard = dice.random(100) < 0.3  # for both runs
        errors = [(hard * (dice.random(100) < share)).astype(int).tolist() for share in (0.5, 0.8)]
        gap = difference(*pair(record("a", errors[0], [4] * 100), record("b", errors[1], [4] * 100)))
        covered += gap.low <= 0.3 * (0.5 - 0.8) / 4 <= gap.high
    assert 0.9 <= covered / 100 <= 1


def test_seeds_are_compared_with_their_own() -> None:
    """What a seed has in common cancels out; a seed that only one of both has does not count."""
    words = [5] * 40
    runs = [record("b0", [2] * 40, words, seed=0), record("b1", [0] * 40, words, seed=1)]
    runs += [record("a0", [3] * 40, words, seed=0), record("a1", [1] * 40, words, seed=1)]
    study, mine, theirs = pair(*runs, record("a2", [5] * 40, words, seed=2))
    gap = difference(study, *same_seeds(mine, theirs))
    assert gap.value == pytest.approx(0.2)
    assert 0.2 - 4 / 200 < gap.low < gap.high < 0.2 + 4 / 200  # one error more either way in 200 words
    alone = same_seeds(mine[mine.seed == 2], theirs)
    assert [len(runs) for runs in alone] == [1, 2]


def test_without_errors_by_utterance_intervals_have_to_lie_apart() -> None:
    far = {"test": {"wer": 0.08, "wer_low": 0.064, "wer_high": 0.096}}
    near = {"test": {"wer": 0.02, "wer_low": 0.016, "wer_high": 0.024}}
    runs = (record("a", [1], [5], metrics=far, utterances=None), record("b", [1], [5], metrics=near))
    gap = difference(*pair(*runs))
    assert (gap.value, gap.low, gap.high) == (
        pytest.approx(0.06),
        pytest.approx(0.064 - 0.024, abs=1e-3),
        pytest.approx(0.096 - 0.016, abs=1e-3),
    )


def grouped(one: dict[str, Any], groups: list[int] | None) -> dict[str, Any]:
    if groups:
        one["utterances"]["test"]["groups"] = " ".join(map(str, groups))
    return one


def test_groups_are_drawn_where_records_tell_of_them() -> None:
    """Of ten speakers one tells the runs apart in all of his utterances: nobody knows whether the next one does."""
    words, speakers = [4] * 200, [number % 10 for number in range(200)]
    worse = [2 if speaker == 3 else 0 for speaker in speakers]
    gaps, drawn = {}, {}
    runs = list(zip("ab", (worse, [0] * 200), strict=True))
    for name, groups in {"none": (None, None), "both": (speakers,) * 2, "one": (None, speakers)}.items():
        told = zip(runs, groups, strict=True)
        records = [grouped(record(run, errors, words), own) for (run, errors), own in told]
        study, mine, theirs = pair(*records)
        gaps[name], drawn[name] = difference(study, mine, theirs), study.resampled
    assert gaps["none"].low > 0
    assert gaps["both"].low <= 0 < gaps["none"].high < gaps["both"].high
    assert np.array_equal(gaps["both"].draws, gaps["one"].draws)
    assert drawn["none"] == "utterances"
    assert drawn["both"] == drawn["one"] == "10 groups of utterances that share a speaker or recordings"
    assert [one.word for one in verdicts([gaps["none"]])] == [REFUTED]
    assert [one.word for one in verdicts([gaps["both"]])] == [OPEN]


@pytest.mark.parametrize("groups", [([0] * 40, [0] * 40), ([0, 1] * 20, [0] * 20 + [1] * 20)], ids=["one", "differ"])
def test_without_groups_to_draw_utterances_are_drawn(groups: tuple[list[int], list[int]]) -> None:
    dice = np.random.default_rng(2)
    errors = [dice.integers(0, 3, 40).tolist() for _ in "ab"]
    plain = [record(run, some, [3] * 40) for run, some in zip("ab", errors, strict=True)]
    told = [grouped(record(run, some, [3] * 40), own) for run, some, own in zip("ab", errors, groups, strict=True)]
    assert np.array_equal(difference(*pair(*plain)).draws, difference(*pair(*told)).draws)


def test_five_speakers_are_not_five_hundred_utterances() -> None:
    """Of runs that are equal but for what each does to a speaker: how often one is told to be better than the other."""
    words, speakers, dice = [4] * 100, [number % 5 for number in range(100)], np.random.default_rng(6)
    wrong = {"utterances": 0, "speakers": 0}
    for _ in range(20):
        errors = [dice.integers(0, 5, 5)[speakers].tolist() for _ in "ab"]
        plain = [record(run, some, words) for run, some in zip("ab", errors, strict=True)]
        wrong["utterances"] += verdicts([difference(*pair(*plain))])[0].word != OPEN
        told = [grouped(one, speakers) for one in plain]
        wrong["speakers"] += verdicts([difference(*pair(*told))])[0].word != OPEN
    assert wrong["utterances"] > 10
    assert wrong["speakers"] < 4


def test_luck_of_seeds_is_in_the_interval() -> None:
    """What differs between seeds alone has the interval of Student's t distribution."""
    words, mine, theirs = [5] * 40, [3, 1, 2, 4, 0, 2, 3, 1], [2] * 8
    runs = [record(f"a{seed}", [each] * 40, words, seed=seed) for seed, each in enumerate(mine)]
    runs += [record(f"b{seed}", [each] * 40, words, seed=seed) for seed, each in enumerate(theirs)]
    gap = difference(*pair(*runs))
    half = 2.365 * np.std(mine, ddof=1) / 5 / np.sqrt(8)  # seven degrees of freedom
    assert (gap.value, gap.low, gap.high) == (0, pytest.approx(-half, rel=0.1), pytest.approx(half, rel=0.1))


def test_few_seeds_seldom_show_what_is_not_there() -> None:
    """Three seeds of two settings that differ by chance alone, and far more between seeds than between utterances."""
    words, dice, wrong = [20] * 40, np.random.default_rng(4), 0
    for _ in range(60):
        runs = [
            record(f"{name}{seed}", [int(each)] * 40, words, seed=seed)
            for name in "ab"
            for seed, each in enumerate(dice.integers(0, 20, 3))
        ]
        wrong += verdicts([difference(*pair(*runs))])[0].word != OPEN
    assert wrong / 60 <= 2 * LEVEL


def test_few_errors_seldom_show_what_is_not_there() -> None:
    """Of models that do lose the margin, at 10 errors in 500 utterances; most draws have none that tells them apart."""
    dice, wrong, trials = np.random.default_rng(7), 0, 60
    for _ in range(trials):
        hard = dice.random(500) < 10 / 500
        worse = (hard | (dice.random(500) < 1 / 500)).astype(int).tolist()
        gap = difference(*pair(record("a", worse, [4] * 500), record("b", hard.astype(int).tolist(), [4] * 500)))
        wrong += gap.other > 0 and verdicts([not_worse(gap)])[0].word == SHOWN
    assert wrong / trials <= LEVEL


def test_a_margin_is_as_uncertain_as_the_rate_that_it_is_a_share_of() -> None:
    dice = np.random.default_rng(8)
    errors = [dice.integers(0, 3, 400).tolist() for _ in "ab"]
    gap = difference(*pair(*(record(name, some, [4] * 400) for name, some in zip("ab", errors, strict=True))))
    claim = not_worse(gap)
    rates = [sum(some) / 1600 for some in errors]
    assert claim.value == pytest.approx(rates[0] - 1.1 * rates[1])
    alone = np.std(gap.other_draws)
    assert alone == pytest.approx(np.std(errors[1]) / 4 / 20, rel=0.05)
    assert np.var(claim.draws) == pytest.approx(np.var(gap.draws) + 0.22 * alone**2 - 0.01 * alone**2, rel=0.1)


def normal(value: float, deviation: float, utterances: int = 100) -> Difference:
    return Difference(value, value + deviation * np.random.default_rng(3).standard_normal(DRAWS), drawn=utterances)


def test_shown_refuted_or_open() -> None:
    gaps = [normal(-0.01, 0.002), normal(0.01, 0.002), normal(-0.002, 0.002), normal(0.1, np.nan)]
    found = verdicts(gaps)
    assert [one.word for one in found] == [SHOWN, REFUTED, OPEN, OPEN]
    # the distance is one deviation; 2.24 leave 1.25 % on one side: two claims are left
    assert found[2].needed == pytest.approx(100 * 2.24**2, rel=0.1)
    assert str(found[2]).startswith("cannot be told (")
    assert str(found[3]) == OPEN


def test_with_as_many_utterances_as_it_says_it_can_be_told() -> None:
    (before,) = verdicts([normal(-0.001, 0.001)])
    (after,) = verdicts([normal(-0.001, 0.99 * 0.001 * (100 / before.needed) ** 0.5)])
    assert (before.word, after.word) == (OPEN, SHOWN)


@pytest.mark.parametrize("deviation", [0.55e-3, 0.6e-3, 0.65e-3])
def test_few_groups_are_told_in_whole_numbers_that_are_enough(deviation: float) -> None:
    """Where a digit more would be a tenth of a group."""
    (found,) = verdicts([normal(-0.001, deviation, utterances=5)])
    assert found.word == OPEN
    assert found.needed == int(found.needed) >= 5 * (1.96 * deviation / 0.001) ** 2 - 0.2


def test_many_claims_are_held_to_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What alone would be shown is not, beside many that nothing is known of."""
    likely, noise = normal(-0.0023, 0.001), [normal(0, 0.001)] * 9
    assert verdicts([likely]) == [Verdict(SHOWN)]
    assert verdicts([likely, *noise])[0].word == OPEN
    assert verdicts([normal(-0.004, 0.001), *noise])[0].word == SHOWN


def test_many_clear_claims_are_all_told() -> None:
    found = verdicts([normal(-0.9, 0.01)] * 200)
    assert {one.word for one in found} == {SHOWN}


def test_a_table_of_more_claims_than_draws_can_tell_says_so() -> None:
    most = 250
    for count, told in ((most, SHOWN), (most + 1, OPEN)):
        assert {one.word for one in verdicts([normal(-0.9, 0.01)] * count)} == {told}
        assert bool(caution(count)) == (told == OPEN)


def test_a_table_without_any_difference_is_seldom_wrong() -> None:
    dice, wrong = np.random.default_rng(5), 0
    for _ in range(200):
        gaps = [normal(value, 1.0) for value in dice.standard_normal(20)]
        wrong += any(one.word != OPEN for one in verdicts(gaps))
    assert wrong / 200 <= 2 * LEVEL
