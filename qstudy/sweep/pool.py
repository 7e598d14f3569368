"""Several workers on this machine: each is a process of its own, `qstudy worker`, that ends with this one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from types import TracebackType
from typing import IO

import torch
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from qstudy.errors import INTERRUPTED, USER_ERROR, UserError
from qstudy.secrets import STORAGE_VARIABLE
from qstudy.sweep.capacity import cores
from qstudy.sweep.lifeline import LIFELINE_VARIABLE
from qstudy.sweep.optuna_internals import kept
from qstudy.sweep.queue import Queue
from qstudy.sweep.summary import sentence
from qstudy.sweep.trials import ATTEMPTS
from qstudy.training.environment import COMMAND_VARIABLE, command

GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"
PROGRAM = Path(__file__).parents[1] / "__main__.py"
POLL_S = 1.0
PATIENCE_S = 30.0  # a worker that is shown to end finishes its step, writes a checkpoint, and puts its trial back
MOST_STARTS = 3  # of each worker, without a trial having been begun meanwhile


@dataclass
class Worker:
    """A worker's number, log and GPU, which its successor takes over, and the process that has them."""

    number: int
    log: Path
    gpu: str | None
    process: Popen[bytes]


class Pool:
    """Workers that are replaced when they crash, and end when the pool is left, in whatever way.

    They are in a session of their own: Ctrl-C and a closed terminal reach this process alone, which tells them once.
    """

    def __init__(self, queue: Queue, workers: int, storage: str | None) -> None:
        self._queue, self._workers, self._storage = queue, workers, storage
        self._pool: list[Worker] = []
        self._crashes, self._seen = 0, _state(queue)

    def __enter__(self) -> "Pool":
        gpus = visible_gpus()
        try:
            for number in range(self._workers):
                log = self._queue.folder / "logs" / f"worker-{number}.log"
                gpu = gpus[number % len(gpus)] if gpus else None
                self._pool.append(Worker(number, log, gpu, self._started(log, gpu)))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:  # they see for themselves that nothing is left to do
            _wait([worker.process for worker in self._pool], PATIENCE_S)
        self._stop()

    def replace_ended(self) -> None:
        """Replace the workers that have ended.

        Raises:
            UserError: one met a mistake of the user, or they crash before they have begun a trial.
        """
        for worker in self._pool:
            code = worker.process.poll()
            if code is None or not self._queue.unfinished():
                continue
            if code == USER_ERROR:
                raise UserError(f"{_last_line(worker.log)} (worker log: {worker.log})")
            if code:
                self._count(worker, code)
                tqdm.write(
                    f"Worker {worker.number} ended ({_described(code)}); another takes its place (log: {worker.log})."
                )
            worker.process = self._started(worker.log, worker.gpu)

    def _count(self, worker: Worker, code: int) -> None:
        seen = _state(self._queue)
        self._crashes = self._crashes + 1 if seen == self._seen else 1
        self._seen = seen
        if self._crashes >= MOST_STARTS * self._workers:
            raise UserError(
                f"The workers end before they have begun a trial, the last with {_described(code)}; see {worker.log}."
            )

    def _started(self, log: Path, gpu: str | None) -> Popen[bytes]:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            return _start(self._queue, self._workers, self._storage, gpu=gpu, log=output)

    def _stop(self) -> None:
        stop([worker.process for worker in self._pool])
        self._queue.recover_soon()  # what one had no time to put back


def run_pool(queue: Queue, workers: int, storage: str | None, on_end: Callable[[], None] = lambda: None) -> None:
    """Work on a study with several processes until its queue is empty.

    Args:
        queue: the study's trials.
        workers: how many processes.
        storage: URL of the study's database; None: its own file.
        on_end: called when trials have ended.

    Raises:
        UserError: a worker met a mistake of the user, all of them crash, or the storage stays away.
    """
    if queue.unfinished() and not queue.trials(TrialState.COMPLETE):
        _prepare(queue, storage)
    shown = {trial.number for trial in _finished(queue)}
    if not queue.unfinished():
        return
    with tqdm(total=queue.config.wanted, desc=queue.config.study, unit="trial", disable=None) as bar:
        with Pool(queue, workers, storage) as pool:
            while _trials_are_left(queue):
                if fresh := _print_ended(queue, shown, bar):
                    shown |= fresh
                    on_end()
                pool.replace_ended()
                time.sleep(POLL_S)
        _print_ended(queue, shown, bar)


def stop(processes: Sequence[Popen[bytes]]) -> None:
    """Tell workers that nobody holds them any more, wait until they have put their trials back, then kill."""
    for process in processes:
        with suppress(OSError):
            if process.stdin:
                process.stdin.close()
    _wait(processes, PATIENCE_S)
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def visible_gpus() -> list[str]:
    """The GPUs of this machine that the environment lets us see, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get(GPUS_VARIABLE)
    count = torch.cuda.device_count()  # asks the driver, and leaves the GPUs to the workers
    return [name.strip() for name in named.split(",")][:count] if named else [str(index) for index in range(count)]


def _trials_are_left(queue: Queue) -> bool:
    """Whether trials are left; a worker may have died before it made place for another candidate."""
    if not queue.unfinished():
        queue.plan()
    return queue.unfinished() > 0


def _prepare(queue: Queue, storage: str | None) -> None:
    """Make what the workers share, with all cores, in a process whose memory is free again when they start."""
    process = _start(queue, 1, storage, "--prepare_only")
    try:
        code = process.wait()
    finally:
        stop([process])
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code < 0:
        raise UserError(f"What the trials share could not be made: its process ended ({_described(code)}).")
    if code:
        sys.exit(code)  # it has said why


def _start(
    queue: Queue,
    share: int,
    storage: str | None,
    *options: str,
    gpu: str | None = None,
    log: IO[bytes] | None = None,
) -> Popen[bytes]:
    """Start `qstudy worker` with 1/share of the cores, and with a GPU of its own, if there is one."""
    environment = {"OMP_NUM_THREADS": str(max(cores() // share, 1)), COMMAND_VARIABLE: command(), **os.environ}
    environment.pop("WANDB_SERVICE", None)  # a W&B service of its own: ours ends with us
    environment[LIFELINE_VARIABLE] = "stdin"
    if gpu is not None:
        environment[GPUS_VARIABLE] = gpu
    if storage is not None:
        environment[STORAGE_VARIABLE] = storage
    program = [sys.executable, "-P", str(PROGRAM), "worker", "--study", queue.config.study]
    place = ["--root", str(queue.folder.parent)]
    return Popen(
        [*program, *place, *options],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def _wait(processes: Sequence[Popen[bytes]], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
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


def _described(code: int) -> str:
    """What an exit code says of a process's end."""
    if code == -signal.SIGKILL:
        return "killed; out of memory?"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip().removeprefix("qstudy: ") if lines else "A worker failed"
