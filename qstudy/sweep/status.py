"""Where a study stands, from its storage alone: nothing is trained, built or changed, and torch is not needed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from qstudy.locks import is_held
from qstudy.sweep.queue import SWEEP_LOCK, Queue
from qstudy.sweep.storage import load, open_storage
from qstudy.sweep.summary import duration, pareto, sentence
from qstudy.sweep.trials import FAILED, FREE, TRAIN_SECONDS, counts, dev_wer, is_trained, outcome_of

ORDER = ("trained", "running", "interrupted", "waiting", "stopped", "overrun", *FAILED, *FREE)
"""Of outcomes and states, when they are told."""


@dataclass(frozen=True)
class Status:
    """A study at one moment."""

    study: str
    wanted: int
    """Trials that it was asked for."""
    trials: Sequence[FrozenTrial]
    """All that there are, by number."""
    dead: Sequence[int]
    """Numbers of those whose worker died: the next worker goes on with them."""
    at_work: bool
    """Whether a sweep runs on this machine, which may still make what the trials share."""
    now: datetime
    exhausted: bool = False
    """Whether there are no more candidates to look at."""

    @property
    def done(self) -> int:
        """Trials that have ended, of those that were asked for."""
        return sum(trial.state.is_finished() and counts(trial) for trial in self.trials)

    @cached_property
    def running(self) -> list[FrozenTrial]:
        """Trials that somebody works on."""
        return [one for one in self.trials if one.state == TrialState.RUNNING and one.number not in self.dead]

    @cached_property
    def trained(self) -> list[FrozenTrial]:
        """Trials with a model, all of them within the budgets."""
        return [trial for trial in self.trials if is_trained(trial)]

    @property
    def outcomes(self) -> dict[str, int]:
        """How many trials came to which end, wait or run."""
        kinds = Counter(outcome_of(trial) or trial.state.name.lower() for trial in self.trials)
        kinds["running"] -= len(self.dead)
        kinds["interrupted"] += len(self.dead)
        order = sorted(kinds, key=lambda kind: ORDER.index(kind) if kind in ORDER else len(ORDER))
        return {kind: kinds[kind] for kind in order if kinds[kind]}

    @property
    def seconds_left(self) -> float | None:
        """At the pace of the trials so far, shared by those who work now; None: unknown, or nobody works.

        Trials whose records were found done tell nothing of that.
        """
        told = [(self._seconds(trial), trial.user_attrs.get(TRAIN_SECONDS, 0.0)) for trial in self.trained]
        spent = [seconds for seconds, training in told if seconds >= training]
        if not spent or not self.running:
            return None
        usual = median(spent)
        ahead = sum(min(self._seconds(trial), usual) for trial in self.running)
        return max(usual * (self.wanted - self.done) - ahead, 0.0) / len(self.running)

    def _seconds(self, trial: FrozenTrial) -> float:
        assert trial.datetime_start is not None
        return ((trial.datetime_complete or self.now) - trial.datetime_start).total_seconds()

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        return {
            "study": self.study,
            "wanted": self.wanted,
            "done": self.done,
            "at_work": self.at_work or bool(self.running),
            "outcomes": self.outcomes,
            "seconds_left": self.seconds_left,
            "running": [self._running(trial) for trial in self.running],
            "best": _told(min(self.trained, key=dev_wer)) if self.trained else None,
            "front": [_told(trial) for trial in pareto(self.trained)],
        }

    def _running(self, trial: FrozenTrial) -> dict[str, Any]:
        """A trial that somebody works on, with the last dev WER that it reported."""
        step, wer = max(trial.intermediate_values.items(), default=(None, None))
        told = {"trial": trial.number, "run": trial.user_attrs.get("run"), "bits": trial.user_attrs.get("bits")}
        return {**told, "seconds": round(self._seconds(trial), 1), "step": step, "dev_wer": wer}


def read_status(study: str, folder: Path, storage: str | None) -> Status:
    """Look at a study.

    Args:
        study: its name.
        folder: where its SQLite file is, and the locks of those who work on it here.
        storage: URL of its database; None: as `open_storage`.

    Raises:
        UserError: there is no such study or storage.
    """
    database = open_storage(storage, folder, create=False)
    config, handle = load(database, study)
    queue = Queue(handle, database, config, folder)
    dead = [trial.number for trial in queue.dead()]
    return Status(
        study, config.wanted, queue.trials(), dead, _is_swept(folder), datetime.now(), exhausted=queue.is_exhausted()
    )


def _is_swept(folder: Path) -> bool:
    lock = folder / SWEEP_LOCK
    return lock.exists() and is_held(lock)


def print_status(status: Status) -> None:
    """Print it for people."""
    left = f", {duration(status.seconds_left)} left" if status.seconds_left is not None else ""
    print(f"Study {status.study}: {status.done} of {status.wanted} trials done{left}.")
    print(f"  {', '.join(f'{count} {name.replace(chr(95), chr(32))}' for name, count in status.outcomes.items())}")
    for one in status.to_dict()["running"]:
        wer = f", step {one['step']}, dev WER {one['dev_wer']:.1%}" if one["step"] is not None else ""
        print(f"  running: {one['run'] or 'trial {:04d}'.format(one['trial'])} for {one['seconds']:.0f} s{wer}")
    if status.trained:
        best = min(status.trained, key=dev_wer)
        bits = best.user_attrs.get("bits", "")
        print(f"  best so far: {sentence(best)}{bits and f', {bits}'}")
    if status.done < status.wanted and not status.running:
        print(f"  {_idle(status)}")


def _idle(status: Status) -> str:
    """Why nothing runs, though trials are missing."""
    if status.at_work:
        return "A sweep makes what the trials share, or looks for candidates."
    if status.exhausted:
        return "It has looked at all candidates that it may; `candidates`, `budgets` or `space` would give it more."
    return "Nobody works on it; `qstudy sweep` with its file goes on."


def _told(trial: FrozenTrial) -> dict[str, Any]:
    names = ("run", "bits", "seed", "seeds", "dev_wer_spread", "test_wer", "size_bytes", "latency_ms")
    told = {name: trial.user_attrs[name] for name in names if name in trial.user_attrs}
    return {"trial": trial.number, "dev_wer": dev_wer(trial), **told}
