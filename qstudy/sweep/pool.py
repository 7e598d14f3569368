"""Several workers on this machine: each is a process of its own, `qstudy worker`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import Popen
from typing import IO

import torch
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from qstudy.errors import UserError
from qstudy.sweep.queue import Queue
from qstudy.sweep.storage import STORAGE_VARIABLE
from qstudy.sweep.summary import sentence
from qstudy.training.record import COMMAND_VARIABLE, command

GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"
POLL_S = 1.0
PATIENCE_S = 5.0  # after Ctrl-C the terminal has told the workers too; who was not told within this time is told by us
USER_ERROR = 2  # exit code of a command that told its user what is wrong


def run_pool(queue: Queue, workers: int, storage: str | None) -> None:
    """Work on a study with several processes until its queue is empty; crashed ones are replaced.

    Raises:
        UserError: a worker met a mistake of the user, or all of them crash.
    """
    if queue.unfinished() and not queue.trials(TrialState.COMPLETE):
        _prepare(queue, storage)
    gpus = visible_gpus()
    while queue.unfinished():
        before = len(_finished(queue))
        logs = [queue.folder / "logs" / f"worker-{index}.log" for index in range(workers)]
        own = [gpus[index % len(gpus)] if gpus else None for index in range(workers)]
        started = zip(logs, own, strict=True)
        codes = _round(queue, [_start_logged(queue, log, workers, storage, gpu) for log, gpu in started])
        for log, code in zip(logs, codes, strict=True):
            if code == USER_ERROR:
                raise UserError(f"{_last_line(log)} (worker log: {log})")
        queue.plan()  # a worker may have died before it made place for another candidate
        if any(codes) and len(_finished(queue)) == before:
            raise UserError(f"The workers end without finishing a trial; see {logs[0].parent}.")


def _prepare(queue: Queue, storage: str | None) -> None:
    """Make what the workers share, with all cores, in a process whose memory is free again when they start."""
    process = _start(queue, 1, storage, "--prepare_only")
    try:
        code = process.wait()
    except KeyboardInterrupt:
        _stop([process])
        raise
    if code:
        sys.exit(code)  # it has said why


def visible_gpus() -> list[str]:
    """The GPUs of this machine that the environment lets us see, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get(GPUS_VARIABLE)
    count = torch.cuda.device_count()  # asks the driver, and leaves the GPUs to the workers
    return [name.strip() for name in named.split(",")][:count] if named else [str(index) for index in range(count)]


def _start_logged(queue: Queue, log: Path, workers: int, storage: str | None, gpu: str | None) -> Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return _start(queue, workers, storage, gpu=gpu, log=output)


def _start(
    queue: Queue,
    share: int,
    storage: str | None,
    *options: str,
    gpu: str | None = None,
    log: IO[bytes] | None = None,
) -> Popen[bytes]:
    """Start `qstudy worker` with 1/share of the cores, and with a GPU of its own, if there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment = {"OMP_NUM_THREADS": str(max(cores // share, 1)), COMMAND_VARIABLE: command(), **os.environ}
    environment.pop("WANDB_SERVICE", None)  # a W&B service of its own: ours ends with us
    if gpu is not None:
        environment[GPUS_VARIABLE] = gpu
    if storage is not None:
        environment[STORAGE_VARIABLE] = storage
    program = [sys.executable, "-m", "qstudy", "worker", "--study", queue.config.study]
    place = ["--root", str(queue.folder.parent)]
    return Popen([*program, *place, *options], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _round(queue: Queue, processes: Sequence[Popen[bytes]]) -> list[int]:
    """Watch the processes until all have ended; their exit codes."""
    told = {trial.number for trial in _finished(queue)}
    try:
        with tqdm(total=queue.config.wanted, desc=queue.config.study, unit="trial", disable=None) as bar:
            while running := any(process.poll() is None for process in processes):
                told |= _tell(queue, told, bar)
                time.sleep(POLL_S if running else 0)
            _tell(queue, told, bar)
    except KeyboardInterrupt:
        _stop(processes)
        queue.recover()  # what a worker had no time to put back
        raise
    return [process.wait() for process in processes]


def _tell(queue: Queue, told: set[int], bar: "tqdm[None]") -> set[int]:
    """Show the trials that ended since the last look."""
    fresh = [trial for trial in _finished(queue) if trial.number not in told]
    for trial in fresh:
        tqdm.write(sentence(trial))
    bar.n = queue.done()
    bar.refresh()
    return {trial.number for trial in fresh}


def _stop(processes: Sequence[Popen[bytes]]) -> None:
    """Wait until interrupted workers have put their trials back; insist, then kill."""
    for patience, signal_number in ((PATIENCE_S, signal.SIGINT), (30.0, signal.SIGKILL)):
        deadline = time.monotonic() + patience
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            time.sleep(0.1)
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal_number)


def _finished(queue: Queue) -> list[FrozenTrial]:
    return queue.trials(TrialState.COMPLETE, TrialState.PRUNED)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip().removeprefix("qstudy: ") if lines else "A worker failed"
