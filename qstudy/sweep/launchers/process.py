"""A worker as a process of the machine that this code runs on: here, or on a node of a cluster."""

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from typing import IO

from qstudy.sweep.launchers.base import End, Job, Worker, described
from qstudy.sweep.lifeline import LIFELINE_VARIABLE

PROGRAM = Path(__file__).parents[2] / "__main__.py"
THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
"""What torch, MKL, OpenBLAS and our own loops go by; and numba's own threads, which only a user's code has."""
SAYS = "qstudy: "
"""How the command's messages begin."""


class Process(Worker):
    """`qstudy worker` with a number of threads.

    It has a session of its own: Ctrl-C and a closed terminal reach this process alone, which tells it once. It ends
    with this one, because its standard input is a pipe from here.
    """

    def __init__(self, job: Job, threads: int, environment: Mapping[str, str] | None = None) -> None:
        """Start it.

        Args:
            job: what to run.
            threads: of each library that computes; what the environment says of them comes first.
            environment: more variables for it.
        """
        self._log = job.log
        count = dict.fromkeys(THREADS, str(max(threads, 1)))
        variables = {**count, **os.environ, **job.environment, **(environment or {}), LIFELINE_VARIABLE: "stdin"}
        variables.pop("WANDB_SERVICE", None)  # a W&B service of its own: ours ends with us
        command = [sys.executable, "-P", str(PROGRAM), "worker", *job.arguments]
        if job.log is None:
            self._process = _started(command, variables, job.folder, None)
            return
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as output:
            self._begin = output.tell()
            self._process = _started(command, variables, job.folder, output)

    def ended(self) -> End | None:
        """How it ended; None: it works."""
        return None if self._process.poll() is None else self.wait()

    def wait(self) -> End:
        """How it ended, once it has."""
        code = self._process.wait()
        return End(code, described(code), self._said())

    def release(self) -> None:
        """Close the pipe that it lives by."""
        with suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def _said(self) -> str:
        """Its last message, which may have several lines; the log is nothing if somebody removed it."""
        with suppress(OSError):
            if self._log is not None:
                text = self._log.read_bytes()[self._begin :].decode(errors="replace").strip()
                _, found, message = f"\n{text}".rpartition(f"\n{SAYS}")
                return message if found else text.rpartition("\n")[2].strip()
        return ""


def _started(
    command: list[str], environment: Mapping[str, str], folder: Path, output: IO[bytes] | None
) -> Popen[bytes]:
    return Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
