"""What a study says of trials that kill their workers, of those that failed, and of those that ran elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweep_helpers import make_config, open_queue

from qstudy.cli import main
from qstudy.sweep import objective
from qstudy.sweep.objective import MOST_ATTEMPTS, Outcome, evaluate
from qstudy.sweep.queue import Queue
from qstudy.training.config import RunConfig
from qstudy.training.record import RECORD_FILE, Record

BASE = {"data": {"train": "train.jsonl", "dev": "dev.jsonl"}, "track": False}
GRID = {"policy": {"name": "ptq", "layers": {"*": {"weight": [8, 4, 3, 2]}}}}


class Killed(BaseException):
    """The end of a process that has no time for anything."""


def begin(queue: Queue) -> Outcome | None:
    """A worker's attempt at the first trial; None: it was killed."""
    claim = queue.claim()
    assert claim is not None
    assert claim.trial.number == 0
    try:
        return evaluate(queue, claim.trial)
    except Killed:
        return None
    finally:
        queue.release(claim)


def killed(saves: bool) -> Callable[..., dict[str, Any]]:
    """A training that is killed, perhaps after it saved a checkpoint."""

    def run(config: RunConfig, folder: Path, **_: Any) -> Record:
        folder.mkdir(parents=True, exist_ok=True)
        if saves:
            (folder / "last.ckpt").write_bytes(b"")
        raise Killed

    return run


def test_attempts_are_counted_anew_after_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = open_queue(tmp_path, make_config(base=BASE, space=None, grid=GRID, trials=1, budgets=None))
    monkeypatch.setattr(objective, "run", killed(saves=True))
    assert [begin(queue) for _ in range(MOST_ATTEMPTS + 2)] == [None] * (MOST_ATTEMPTS + 2)
    monkeypatch.setattr(objective, "run", killed(saves=False))
    assert [begin(queue) for _ in range(MOST_ATTEMPTS)] == [None] * MOST_ATTEMPTS
    outcome = begin(queue)
    assert outcome is not None
    assert (outcome.kind, outcome.reason) == (
        "given_up",
        "its process died 10 times without getting further; out of memory?",
    )


def test_who_was_there_first_goes_on_after_a_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers propose the same; the one with the larger number begins to train it, is killed, and goes on."""
    space = {"policy": {"name": "ptq", "layers": {"*": {"weight": [8]}}}}
    queue = open_queue(tmp_path, make_config(base=BASE, space=space, trials=2, budgets=None))
    monkeypatch.setattr(objective, "run", killed(saves=True))
    slower, quicker = queue.claim(), queue.claim()
    assert slower is not None
    assert quicker is not None
    for _ in range(2):
        with pytest.raises(Killed):
            evaluate(queue, quicker.trial)
        outcome = evaluate(queue, slower.trial)
        assert (outcome.kind, outcome.reason) == ("repeated", "same configuration as trial 1")
    queue.release(slower)
    queue.release(quicker)


@pytest.mark.parametrize(("heard_ms", "kind"), [(700.0, "trained"), (1200.0, "overrun")])
def test_costs_are_what_a_trained_model_measured(
    heard_ms: float, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an amortized encoder does, whose price before the training is a guess."""

    def trained(config: RunConfig, folder: Path, **_: Any) -> Record:
        own: dict[str, Any] = {"usage": {"dev": {"frames": 1}}, "latency": {"edge_nna": {"latency_ms": heard_ms}}}
        return Record(run=folder.name, state="complete", policy="ptq", metrics={"dev": {"wer": 0.25}}, **own)

    config = make_config(base=BASE, space=None, grid=GRID, trials=1, budgets={"latency_ms": 1000})
    queue = open_queue(tmp_path, config)
    monkeypatch.setattr(objective, "run", trained)
    claim = queue.claim()
    assert claim is not None
    outcome = evaluate(queue, claim.trial)
    queue.finish(claim, outcome.kind, outcome.reason, outcome.values)
    trial = queue.trials()[0]
    assert (outcome.kind, trial.user_attrs["latency_ms"]) == (kind, heard_ms)
    assert trial.user_attrs["feasible"] == (kind == "trained")
    if kind == "overrun":
        assert outcome.reason == "over budget: latency_ms 1200 > 1000, measured after the training"
        assert trial.constraints["overrun"] > 0


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`qstudy sweep` of a grid whose trainings are made up."""
    monkeypatch.chdir(tmp_path)
    for name in ("prepare", "require_same_data"):  # there is no data
        monkeypatch.setattr(f"qstudy.sweep.study.{name}", lambda *_: None)
    Path("study.yaml").write_text(yaml.safe_dump({"study": "small", "base": BASE, "grid": GRID}))

    def pretend(config: RunConfig, folder: Path, **_: Any) -> Record:
        folder.mkdir(parents=True)
        (folder / RECORD_FILE).touch()
        return Record(run=folder.name, state="complete", policy="ptq", metrics={"dev": {"wer": 0.25}})

    monkeypatch.setattr(objective, "run", pretend)
    return lambda *options: main(["sweep", "study.yaml", *options])


def test_a_study_with_trials_given_up_says_so_and_ends_with_3(
    sweep: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(objective, "MOST_ATTEMPTS", 0)
    for _ in range(2):
        with pytest.raises(SystemExit) as exit:
            sweep("--trials", "2")
        assert exit.value.code == 3
        said = capsys.readouterr().out
        assert "Study small: 0 of 2 trials trained, 2 given up." in said
        assert "Given up, because their process died again and again: trial-0000-ptq, trial-0001-ptq" in said
        assert "Loosen" not in said
    monkeypatch.setattr(objective, "MOST_ATTEMPTS", 10)
    with pytest.raises(SystemExit) as exit:
        sweep()
    assert exit.value.code == 3
    assert "2 of 4 trials trained, 2 given up" in capsys.readouterr().out


def test_a_study_in_which_all_failed_ends_with_3(
    sweep: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: RunConfig, folder: Path, **_: Any) -> Record:
        raise ZeroDivisionError("no frames")

    monkeypatch.setattr(objective, "run", fail)
    with pytest.raises(SystemExit) as exit:
        sweep("--trials", "2")
    assert exit.value.code == 3
    assert "Nothing was trained; 2 failed, the last with: ZeroDivisionError: no frames" in capsys.readouterr().out


def test_trials_that_ran_elsewhere_are_told(
    sweep: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QSTUDY_STORAGE", f"sqlite:///{tmp_path / 'shared.db'}")
    sweep("--trials", "1", "--root", "one")
    assert "elsewhere" not in capsys.readouterr().out
    sweep("--trials", "3", "--root", "two")
    assert "1 of 3 trials ran elsewhere (on another machine, or with another --root)" in capsys.readouterr().out
