"""What runs are judged by: fronts, budgets, hypervolume, differences."""

import tempfile
from pathlib import Path
from typing import Any

import analysis_study as made
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.measures import (
    Difference,
    best,
    compression,
    difference,
    front,
    hypervolume,
    same_seeds,
    smallest_lossless,
)
from analysis.study import Study


def test_front_best_and_smallest_of_the_study(tmp_path: Path) -> None:
    study = made.study(tmp_path, made.records())
    assert list(front(study.settings).label) == ["W2", "W3", "W4", "W5", "W6"]
    chosen, smallest = best(study), smallest_lossless(study)
    assert chosen is not None
    assert (chosen.policy, chosen.label) == ("fake_qat", "W5")  # W6 takes 2.002 ms of 2 ms
    assert smallest is not None
    assert (smallest.policy, smallest.label) == ("fake_qat", "W3")


def test_winners_are_chosen_on_dev_and_reported_on_test(tmp_path: Path) -> None:
    """A run that was lucky on the test set wins nothing."""
    records = made.records()
    lucky = next(record for record in records if record["run"] == "trial-0012-fake_qat")
    lucky["metrics"]["test"] |= {"wer": 0.0001, "wer_low": 0.0}
    steady = next(record for record in records if record["run"] == "trial-0014-fake_qat")
    steady["metrics"]["dev"] |= {"wer": 0.0005, "wer_low": 0.0}
    study = made.study(tmp_path, records)
    chosen = best(study)
    assert chosen is not None
    assert (chosen.run, chosen.wer) == (steady["run"], steady["metrics"]["test"]["wer"])
    assert steady["run"] in list(front(study.settings).run)
    assert lucky["run"] not in list(front(study.settings).run)
    assert lucky["run"] in list(front(study.settings, error="wer").run)


def test_the_smallest_is_held_against_its_baselines_interval_on_dev(tmp_path: Path) -> None:
    records = made.records()
    smallest = smallest_lossless(made.study(tmp_path / "a", records))
    assert smallest is not None
    worse = next(record for record in records if record["run"] == smallest.run)
    worse["metrics"]["dev"] |= {"wer": 0.9, "wer_high": 0.9}
    other = smallest_lossless(made.study(tmp_path / "b", records))
    assert other is not None
    assert other.size_bytes > smallest.size_bytes


def test_compression_is_against_the_baseline_or_the_parameters(tmp_path: Path) -> None:
    trials = made.study(tmp_path, made.records()).trials
    floats = 4 * made.PARAMETERS + 24000
    assert list(compression(trials)) == pytest.approx(list(floats / trials.size_bytes))
    alone = trials.assign(float_bytes=np.nan, parameters=100.0, size_bytes=50.0)
    assert set(compression(alone)) == {8.0}


def test_the_hypervolume_is_what_the_front_dominates() -> None:
    runs = pd.DataFrame({"size_bytes": [2.0, 4.0, 5.0], "choice": [0.5, 0.25, 0.3]})
    assert hypervolume(runs, "size_bytes", most=10, worst=1) == pytest.approx((2 * 0.5 + 6 * 0.75) / 10)
    assert hypervolume(runs, "size_bytes", most=3, worst=1) == pytest.approx(0.5 / 3)
    assert hypervolume(runs.assign(choice=1.0), "size_bytes", most=10, worst=1) == 0


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
    there, back = difference(study, mine, theirs), difference(study, theirs, mine)
    assert (there.value, there.low, there.high) == (-back.value, pytest.approx(-back.high), pytest.approx(-back.low))
    assert difference(study, mine, mine) == Difference(0, 0, 0)


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
    assert (gap.value, gap.low, gap.high) == tuple(map(pytest.approx, (0.2, 0.2, 0.2)))
    alone = same_seeds(mine[mine.seed == 2], theirs)
    assert [len(runs) for runs in alone] == [1, 2]


def test_without_errors_by_utterance_intervals_have_to_lie_apart() -> None:
    far = {"test": {"wer": 0.08, "wer_low": 0.064, "wer_high": 0.096}}
    near = {"test": {"wer": 0.02, "wer_low": 0.016, "wer_high": 0.024}}
    runs = (record("a", [1], [5], metrics=far, utterances=None), record("b", [1], [5], metrics=near))
    gap = difference(*pair(*runs))
    assert (gap.value, gap.low, gap.high) == tuple(map(pytest.approx, (0.06, 0.064 - 0.024, 0.096 - 0.016)))
