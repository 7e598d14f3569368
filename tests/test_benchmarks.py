"""The benchmarks compare like with like, and say what they found."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch

from benchmarks import __main__ as program
from benchmarks import data, head_problem, many_trials, qat, table, timing
from benchmarks.problem import Problem, ours, reference, torchaudio_loss
from benchmarks.profile import SIDES, profile
from benchmarks.row import Row
from benchmarks.search.text import ranking
from benchmarks.timing import SLOW_MS, interleaved
from qstudy.training.config import config_from_dict

ROW = Row("a loss", "ms", "a peer", ours=2.0, theirs=25.0, reference_is="a pass", reference=1.5)
MACHINE = {
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


def test_every_subject_can_be_measured() -> None:
    assert all(map(callable, program.SUBJECTS.values()))


def test_sides_do_the_same_job() -> None:
    gradients = []
    for side in (ours, torchaudio_loss):
        problem = Problem.random(2, 6, 3, 5)
        side(problem)
        gradients.append(problem.logits.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-3)
    reference(problem)
    assert problem.logits.grad is not None
    assert not torch.equal(problem.logits.grad, gradients[1])  # computed anew, not added up or left over


def test_sides_take_turns() -> None:
    calls: list[str] = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b"] * 5  # two for warming up
    assert times.keys() == {"a", "b"}
    assert all(0 <= each < SLOW_MS for each in times.values())


def test_a_side_is_slow_if_it_is_so_once_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    took = {"compiled": [SLOW_MS + 5, 3.0, 1.0, 2.0, 1.0], "slow": [SLOW_MS + 9, SLOW_MS + 1]}
    monkeypatch.setattr(timing, "milliseconds", lambda side: side())
    sides = {name: iter(times).__next__ for name, times in took.items()}
    assert interleaved(sides, rounds=3) == {"compiled": 1.0, "slow": SLOW_MS + 1}


@pytest.mark.parametrize(
    ("options", "folder"),
    [([], program.WHOLE), (["loss"], program.SOME), (["loss", "--out", "own"], Path("own"))],
    ids=str,
)
def test_some_subjects_leave_the_table_of_all_as_it_is(
    options: list[str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(program, "SUBJECTS", {"loss": lambda: [ROW]})
    monkeypatch.setattr(program, "describe", lambda: MACHINE)
    monkeypatch.setattr("sys.argv", ["benchmarks", *options])
    program.main()
    so_far = tmp_path / (folder if "--out" in options else program.SOME)
    assert {*tmp_path.rglob("bench.json")} == {tmp_path / folder / "bench.json", so_far / "bench.json"}


def test_a_measurement_that_stops_leaves_the_table_of_all_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops() -> Iterator[Row]:
        yield ROW
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(program, "SUBJECTS", {"loss": lambda: [ROW], "head": stops})
    monkeypatch.setattr(program, "describe", lambda: MACHINE)
    monkeypatch.setattr("sys.argv", ["benchmarks"])
    with pytest.raises(KeyboardInterrupt):
        program.main()
    assert [*tmp_path.rglob("bench.json")] == [tmp_path / program.SOME / "bench.json"]


def test_a_row_of_layers_times_its_own_sides_in_turn() -> None:
    sides = dict.fromkeys(["float", "fake W8", "fake W8A8", "Brevitas W8"], lambda: None)
    assert list(qat.turns("fake W8", "Brevitas W8", sides)) == ["fake W8", "Brevitas W8", "float"]
    assert list(qat.turns("fake W8A8", "Brevitas W8A8", sides)) == ["fake W8A8", "float"]  # it is not installed


def test_the_floor_of_the_head_multiplies_what_is_there() -> None:
    problem = head_problem.HeadProblem.random(2, 6, 3, 5, 4)
    there = problem.rows
    head_problem.products(problem)
    assert problem.rows is there
    assert [each.shape for each in there] == [(2 * 6 * 4, 4), (2 * 6 * 4, 5)]


def test_a_profile_of_an_epoch_with_fewer_batches(corpus: Path, tmp_path: Path) -> None:
    config = config_from_dict(
        {
            "data": {"train": str(corpus / "train.jsonl"), "dev": str(corpus / "dev.jsonl")},
            "model": {"encoder": {"name": "lstm", "hidden": 8, "layers": 1}, "joiner": {"hidden": 8}},
            "training": {"batch_size": 12},
            "cache": str(tmp_path / "cache"),
        }
    )
    parts, whole = profile(config, None, 20)
    assert {"encoder", "backward", "loader"} <= parts.keys()
    assert whole.keys() == set(SIDES)
    assert min(whole.values()) > 0


def test_row_in_words_and_figures() -> None:
    assert table.cells(ROW) == ("a loss", "2 ms", "a peer 25 ms", "12.5x", "a pass 1.5 ms", "1.33x")
    missing = Row("a loss", "ms", "a peer", ours=1234.5, skipped="not installed")
    assert table.cells(missing) == ("a loss", "1,234 ms", "a peer: skipped (not installed)", "-", "", "-")


def test_table_and_json_hold_every_row() -> None:
    text = table.markdown([ROW, ROW], MACHINE)
    assert text.count("| a loss | 2 ms |") == 2
    assert "`python -m benchmarks`" in text
    assert table.terminal([ROW]).row_count == 1
    assert table.json([ROW], MACHINE)["rows"][0]["ratio"] == 12.5


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
