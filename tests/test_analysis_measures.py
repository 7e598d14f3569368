"""What runs are judged by: fronts, budgets, hypervolume."""

from pathlib import Path

import analysis_study as made
import numpy as np
import pandas as pd
import pytest

from analysis.measures import best, compression, front, hypervolume, smallest_near_float


def test_front_best_and_smallest_of_the_study(tmp_path: Path) -> None:
    study = made.study(tmp_path, made.records())
    assert list(front(study.settings).label) == ["W2", "W3", "W4", "W5", "W6"]
    chosen, smallest = best(study), smallest_near_float(study)
    assert chosen is not None
    assert (chosen.policy, chosen.label) == ("fake_qat", "W5")  # W6 takes 2.002 ms of 2 ms
    assert smallest is not None
    # W3 is within the baseline's interval, but 41 % above its rate
    assert (smallest.policy, smallest.label) == ("fake_qat", "W4")


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


def test_the_smallest_is_held_against_its_baselines_rate_on_dev(tmp_path: Path) -> None:
    records = made.records()
    smallest = smallest_near_float(made.study(tmp_path / "a", records))
    assert smallest is not None
    worse = next(record for record in records if record["run"] == smallest.run)
    worse["metrics"]["dev"] |= {"wer": 0.9, "wer_high": 0.9}
    other = smallest_near_float(made.study(tmp_path / "b", records))
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
