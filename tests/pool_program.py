"""The command `qstudy` for tests of the pool: trials that do what a file `behave` says, instead of training.

`sweep` starts this file again as its workers. A line is left in `pids` for every worker that takes a trial.
"""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import optuna
import pytest
from sweep_helpers import measure

from qstudy.cli import main
from qstudy.sweep import pool, study, worker
from qstudy.sweep.launchers import process
from qstudy.sweep.objective import Outcome
from qstudy.sweep.queue import Queue


def evaluate(queue: Queue, trial: optuna.Trial) -> Outcome:
    with Path("pids").open("a") as file:
        file.write(f"{os.getpid()}\n")
    outcome = measure(queue, trial)
    trial.set_user_attr("run", f"trial-{trial.number:04d}-toy")
    behave = Path("behave").read_text()
    if behave == "wait":
        time.sleep(600)
    if behave == "crash once":
        Path("behave").write_text("work")
        os.kill(os.getpid(), signal.SIGKILL)
    if behave == "slowly":
        time.sleep(1)
    return outcome


def use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pools start this program in `folder`."""
    here = Path(__file__)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", f"{here.parents[1]}{os.pathsep}{here.parent}")
    monkeypatch.setattr(process, "PROGRAM", here)
    monkeypatch.setattr(pool, "prepare", lambda *_: None)
    monkeypatch.setattr(pool, "POLL_S", 0.2)


def workers_of(folder: Path) -> list[int]:
    """Process ids, one for every trial that was begun."""
    file = folder / "pids"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def patch() -> None:
    process.PROGRAM = Path(__file__)
    pool.prepare = lambda *_: None
    study.check = study.prepare = study.require_same_data = study.print_forecast = lambda *_: None
    study.work = partial(worker.work, evaluate=evaluate)


if __name__ == "__main__":
    patch()
    main(sys.argv[1:])
