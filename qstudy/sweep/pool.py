"""Several workers for a study: replaced when they crash or are lost, and ended with this process."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from qstudy.errors import INTERRUPTED, USER_ERROR, UserError
from qstudy.secrets import STORAGE_VARIABLE
from qstudy.sweep.launchers.base import End, Job, Launcher, Worker
from qstudy.sweep.optuna_internals import kept
from qstudy.sweep.queue import Queue
from qstudy.sweep.summary import sentence
from qstudy.sweep.trials import ATTEMPTS
from qstudy.training.environment import COMMAND_VARIABLE, command

POLL_S = 1.0
PATIENCE_S = 30.0  # a worker that is shown to end finishes its step, writes a checkpoint, and puts its trial back
MOST_STARTS = 3  # of each worker, without a trial having been begun meanwhile
CARRIED = ("QSTUDY_", "WANDB_", "PYTHONPATH")  # beginnings of the variables that workers elsewhere need too


@dataclass
class Place:
    """A worker and its job, which its successor takes over."""

    job: Job
    worker: Worker


class Pool:
    """Workers that are replaced when they end early, and end when the pool is left, in whatever way."""

    def __init__(self, queue: Queue, launcher: Launcher, workers: int, storage: str | None) -> None:
        self._queue, self._launcher = queue, launcher
        self._jobs = [job_of(queue, storage, number, workers) for number in range(workers)]
        self._places: list[Place] = []
        self._crashes, self._seen = 0, _state(queue)

    def __enter__(self) -> "Pool":
        try:
            for job in self._jobs:
                self._places.append(Place(job, self._launcher.start(job)))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:  # they see for themselves that nothing is left to do
            _wait([place.worker for place in self._places], PATIENCE_S)
        self._stop()

    def replace_ended(self) -> None:
        """Replace the workers that have ended.

        Raises:
            UserError: one met a mistake of the user, or they crash before they have begun a trial.
        """
        for place in self._places:
            end = place.worker.ended()
            if end is None or not self._queue.unfinished():
                continue
            number, log = place.job.number, place.job.log
            if end.code == USER_ERROR:
                raise UserError(f"{end.said or 'A worker failed'} (worker log: {log})")
            if end.code:
                self._count(place, end)
                tqdm.write(f"Worker {number} ended ({end.how}); another takes its place (log: {log}).")
            place.worker = self._launcher.start(place.job)

    def _count(self, place: Place, end: End) -> None:
        seen = _state(self._queue)
        self._crashes = self._crashes + 1 if seen == self._seen else 1
        self._seen = seen
        if self._crashes >= MOST_STARTS * len(self._jobs):
            raise UserError(
                f"The workers end before they have begun a trial, the last with {end.how}; see {place.job.log}."
            )

    def _stop(self) -> None:
        stop([place.worker for place in self._places])
        self._queue.recover_soon()  # what one had no time to put back


def run_pool(
    queue: Queue, launcher: Launcher, workers: int, storage: str | None, on_end: Callable[[], None] = lambda: None
) -> None:
    """Work on a study with several workers until its queue is empty.

    Args:
        queue: the study's trials.
        launcher: starts them, entered.
        workers: how many.
        storage: URL of the study's database; None: its own file, or that of the environment.
        on_end: called when trials have ended.

    Raises:
        UserError: a worker met a mistake of the user, all of them crash, or the storage stays away.
    """
    if queue.unfinished() and not queue.trials(TrialState.COMPLETE):
        prepare(queue, launcher, storage)
    shown = {trial.number for trial in _finished(queue)}
    if not queue.unfinished():
        return
    with tqdm(total=queue.config.wanted, desc=queue.config.study, unit="trial", disable=None) as bar:
        with Pool(queue, launcher, workers, storage) as pool:
            while queue.has_work():
                if fresh := _print_ended(queue, shown, bar):
                    shown |= fresh
                    on_end()
                pool.replace_ended()
                time.sleep(POLL_S)
        _print_ended(queue, shown, bar)


def prepare(queue: Queue, launcher: Launcher, storage: str | None) -> None:
    """Make what the workers share, in one that has all that several would share, and whose memory is free again."""
    worker = launcher.start(job_of(queue, storage, options=("--prepare_only",)))
    try:
        while (end := worker.ended()) is None:
            time.sleep(POLL_S / 5)
    finally:
        stop([worker])
    if end.code == INTERRUPTED:
        raise KeyboardInterrupt
    if end.code < 0:
        raise UserError(f"What the trials share could not be made: its process ended ({end.how}).")
    if end.code:
        sys.exit(end.code)  # it has said why


def job_of(queue: Queue, storage: str | None, number: int = 0, of: int = 1, options: Sequence[str] = ()) -> Job:
    """What the worker of this number does; with `options` one that is not numbered, and shows what it prints."""
    known = {COMMAND_VARIABLE: command()} | ({} if storage is None else {STORAGE_VARIABLE: storage})
    carried = {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}
    place = ("--study", queue.config.study, "--root", str(queue.folder.parent))
    log = None if options else queue.folder.resolve() / "logs" / f"worker-{number}.log"
    return Job((*place, *options), {**carried, **known}, Path.cwd(), log, number, of)


def stop(workers: Sequence[Worker]) -> None:
    """Tell workers that nobody holds them any more, wait until they have put their trials back, then kill."""
    for worker in workers:
        worker.release()
    _wait(workers, PATIENCE_S)
    for worker in workers:
        if worker.ended() is None:
            worker.kill()


def _wait(workers: Sequence[Worker], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(worker.ended() is None and not worker.waits() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)


def _state(queue: Queue) -> list[object]:
    """What changes when a worker begins a trial or ends one."""
    return [(trial.state, kept(trial).get(ATTEMPTS)) for trial in queue.trials()]


def _print_ended(queue: Queue, shown: set[int], bar: "tqdm[None]") -> set[int]:
    """Show the trials that ended since the last look."""
    if queue.ended() == len(shown):
        return set()
    fresh = [trial for trial in _finished(queue) if trial.number not in shown]
    for trial in fresh:
        tqdm.write(sentence(trial))
    bar.n = queue.done()
    bar.refresh()
    return {trial.number for trial in fresh}


def _finished(queue: Queue) -> list[FrozenTrial]:
    return queue.trials(TrialState.COMPLETE, TrialState.PRUNED)
