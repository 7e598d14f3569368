"""Rows: what a sweep costs per trial beside a plain script of Optuna and Lightning that trains the same models.

`python -m benchmarks.sweep SIDE FOLDER` runs one side's trials and prints what it found as JSON.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import optuna
import yaml

from benchmarks.plain_sweep import plain_sweep
from benchmarks.row import Row
from qstudy.commands.sweep import sweep
from qstudy.data.corpora.commands import commands
from qstudy.sweep import study, worker
from qstudy.sweep.config import load_study
from qstudy.sweep.objective import Outcome, evaluate
from qstudy.sweep.queue import Queue
from qstudy.training import conclude, run
from qstudy.training.module import TransducerModule

WIDTHS = [8, 7, 6, 5, 4, 3]
"""One trial each; the first does not count: it loads what the others share."""
STEPS = 20


def rows() -> Iterable[Row]:
    """Trials per hour are an hour over the first row; the second is what is left of it without steps and decoding."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made_up(folder)
        found = {side: measured(side, folder) for side in SIDES}
    ours, peer, tracked = (found[side] for side in SIDES)
    what, script = f"trial of {STEPS} steps", "plain Optuna + Lightning"
    yield Row(what, "ms", script, ours["trial"], peer["trial"], "its steps and decoding", ours["work"])
    yield Row("a trial beyond steps and decoding", "ms", script, ours["beyond"], peer["beyond"])
    yield Row("the same with W&B, offline", "ms", f"{script}, without", tracked["beyond"], peer["beyond"])
    yield Row("a trial before its first step", "ms", script, ours["start"], peer["start"])


def made_up(folder: Path) -> None:
    """A corpus, and a study of trials in which little is trained."""
    commands(folder / "corpus", train=48, dev=12, test=12, processes=1)
    short = {"steps": STEPS, "batch_size": 8, "precision": "32-true"}
    base = {
        "data": {"train": str(folder / "corpus/train.jsonl"), "dev": str(folder / "corpus/dev.jsonl")},
        "model": {"encoder": {"name": "lstm", "hidden": 64, "layers": 2}, "joiner": {"hidden": 64}},
        "training": short,
        "finetune": short,
        "cache": str(folder / "cache"),
        "trainer": {"accelerator": "cpu"},  # as the plain script has it, on a machine with GPUs too
    }
    grid = {"policy": {"name": "fake_qat", "layers": {"*": {"weight": WIDTHS}}}}
    for side in SIDES:
        values = {"study": side, "base": {**base, "track": side == "tracked"}, "grid": grid}
        (folder / f"{side}.yaml").write_text(yaml.safe_dump(values))
    run.prepare(load_study(folder / "ours.yaml").base_run)


def measured(side: str, folder: Path) -> dict[str, float]:
    """Milliseconds of one side, in a fresh process: of a trial, of its work, of the rest, and until its first step."""
    command = [sys.executable, "-m", "benchmarks.sweep", side, str(folder)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    return {name: 1e3 * value for name, value in json.loads(told).items()}


class Clock:
    """The seconds of every trial, those in steps and decoding, and those before its first step."""

    def __init__(self) -> None:
        self.trials: list[dict[str, float]] = []

    @contextmanager
    def trial(self) -> Iterator[None]:
        """A trial, from its proposal to its record."""
        self._work, self._first, begin = 0.0, 0.0, time.perf_counter()
        yield
        whole = time.perf_counter() - begin
        start = self._first - begin
        self.trials.append({"trial": whole, "work": self._work, "beyond": whole - self._work, "start": start})

    def worked(self, seconds: float, begin: float) -> None:
        """Some of its steps or decoding."""
        self._work += seconds
        self._first = self._first or begin

    def medians(self) -> dict[str, float]:
        """Over the trials after the first."""
        return {name: median(trial[name] for trial in self.trials[1:]) for name in self.trials[0]}

    def around(self, module: Any, name: str) -> None:
        """Count what a function takes as work."""
        function = getattr(module, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.worked(time.perf_counter() - begin, begin)

        setattr(module, name, timed)


def watched(clock: Clock) -> None:
    """Steps are from the first batch on, as the record's `train_seconds`; decoding is the final one, of every model."""
    clock.around(conclude, "recognize")
    begun: list[float] = []
    begin, end = TransducerModule.on_train_batch_start, TransducerModule.on_train_batch_end

    def start(self: TransducerModule, *args: Any) -> Any:
        begun.append(time.perf_counter())
        return begin(self, *args)

    def stop(self: TransducerModule, *args: Any) -> Any:
        clock.worked(time.perf_counter() - begun[-1], begun[-1])
        return end(self, *args)

    TransducerModule.on_train_batch_start, TransducerModule.on_train_batch_end = start, stop  # type: ignore[assignment]


def ours(folder: Path, name: str, clock: Clock) -> None:
    """`qstudy sweep` in this process, where its trials are timed: one worker alone starts no others."""

    def timed(queue: Queue, trial: optuna.Trial) -> Outcome:
        with clock.trial():
            return evaluate(queue, trial)

    study.work = partial(worker.work, evaluate=timed)  # type: ignore[assignment]
    sweep(folder / f"{name}.yaml", workers=1, root=folder / "studies")


SIDES: dict[str, Callable[[Path, Clock], None]] = {
    "ours": lambda folder, clock: ours(folder, "ours", clock),
    "peer": lambda folder, clock: plain_sweep(load_study(folder / "peer.yaml"), folder / "peer.db", clock.trial),
    "tracked": lambda folder, clock: ours(folder, "tracked", clock),
}


def main(side: str, folder: str) -> None:
    """Run one side."""
    clock = Clock()
    watched(clock)
    SIDES[side](Path(folder), clock)
    print(json.dumps(clock.medians()))


if __name__ == "__main__":
    main(*sys.argv[1:])
