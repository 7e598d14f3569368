"""The benchmarks compare like with like, and say what they found."""

from pathlib import Path

import numpy as np
import optuna
import pytest
import torch

from benchmarks import data, many_trials, table
from benchmarks.__main__ import SUBJECTS
from benchmarks.problem import Problem, floor, ours, torchaudio_loss
from benchmarks.row import Row
from benchmarks.search.text import ranking
from benchmarks.timing import SLOW_MS, interleaved

ROW = Row("a loss", "ms", "a peer", ours=2.0, theirs=25.0, floor_is="a pass", floor=1.5)


def test_every_subject_can_be_measured() -> None:
    assert all(map(callable, SUBJECTS.values()))


def test_sides_do_the_same_job() -> None:
    gradients = []
    for side in (ours, torchaudio_loss):
        problem = Problem.random(2, 6, 3, 5)
        side(problem)
        gradients.append(problem.logits.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-3)
    floor(problem)
    assert problem.logits.grad is not None
    assert not torch.equal(problem.logits.grad, gradients[1])  # computed anew, not added up or left over


def test_sides_take_turns() -> None:
    calls: list[str] = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b"] * 5  # two for warming up
    assert times.keys() == {"a", "b"}
    assert all(0 <= each < SLOW_MS for each in times.values())


def test_row_in_words_and_figures() -> None:
    assert table.cells(ROW) == ("a loss", "2 ms", "a peer 25 ms", "12.5x", "a pass 1.5 ms", "1.33x")
    missing = Row("a loss", "ms", "a peer", ours=1234.5, skipped="not installed")
    assert table.cells(missing) == ("a loss", "1,234 ms", "a peer: skipped (not installed)", "-", "", "-")


def test_table_and_json_hold_every_row() -> None:
    machine = {
        "processor": "P",
        "cores": 2,
        "threads": 2,
        "memory_gib": 8.0,
        "gpu": None,
        "load_before": 0.1,
        "commit": "abc",
        "versions": {"torch": "2"},
        "created": "now",
        "command": "python -m benchmarks",
    }
    text = table.markdown([ROW, ROW], machine)
    assert text.count("| a loss | 2 ms |") == 2
    assert "`python -m benchmarks`" in text
    assert table.terminal([ROW]).row_count == 1
    assert table.json([ROW], machine)["rows"][0]["ratio"] == 12.5


def test_allocations_are_counted_by_seed() -> None:
    found = [{"seed": seed, "allocations": [{}] * many, "correlation": {}} for seed, many in ((0, 3), (1, 3), (2, 2))]
    assert "over 2 or 3 allocations per seed" in "\n".join(ranking(found))
    assert "over 3 allocations per seed" in "\n".join(ranking(found[:2]))


def test_features_of_the_peer_are_ours(tmp_path: Path) -> None:
    manifest = data.corpus(tmp_path / "corpus", 2, seconds=0.3)
    features = data.opened(manifest, tmp_path / "cache")
    np.testing.assert_allclose(features.frames(1), data.kaldi(data.paths(manifest)[1]), atol=1e-3, rtol=0)


def test_a_study_is_multiplied_with_all_that_belongs_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_trials, "BY_OPTUNA", 8)
    many_trials.made_up(tmp_path / "many", 24)
    trials = optuna.load_study(study_name="many", storage=f"sqlite:///{tmp_path / 'many' / 'study.db'}").trials
    assert [trial.number for trial in trials] == list(range(24))
    for one, copy in zip(trials[:8] * 2, trials[8:], strict=True):
        assert copy.params == one.params != {}
        assert (copy.state, copy.values, copy.user_attrs) == (one.state, one.values, one.user_attrs)
