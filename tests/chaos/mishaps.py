"""What can happen to a sweep: each a function of the sweep, its database and dice."""

import os
import random
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from tests.postgres import Server
from tests.processes import command, family

from .sweep import Sweep

LONGEST_S = 10.0
"""Without a database, or without space on the disk."""


def kill_worker(sweep: Sweep, _: Server, dice: random.Random) -> None:
    """At any moment, one that is only starting included."""
    if workers := [pid for pid in family(sweep.pid) if " worker --study " in command(pid)]:
        with suppress(ProcessLookupError):
            os.kill(dice.choice(workers), signal.SIGKILL)


def kill_launcher(sweep: Sweep, _: Server, dice: random.Random) -> None:
    """Alone: its workers notice."""
    with suppress(ProcessLookupError):
        os.kill(sweep.pid, signal.SIGKILL)
    sweep.process.wait()


def restart_database(_: Sweep, server: Server, dice: random.Random) -> None:
    """At once, with all transactions that are open; it stays away for up to ten seconds."""
    server.stop(signal.SIGQUIT)
    time.sleep(dice.uniform(1, LONGEST_S))
    server.start()


def fill_disk(sweep: Sweep, _: Server, dice: random.Random) -> None:
    """No process of the sweep can write another byte to a file, for up to ten seconds."""
    end = time.monotonic() + dice.uniform(1, LONGEST_S)
    while time.monotonic() < end:  # those that were just started too
        _limit(sweep, 0)
        time.sleep(0.2)
    _limit(sweep, resource.RLIM_INFINITY)


def _limit(sweep: Sweep, length: int) -> None:
    for pid in family(sweep.pid):
        with suppress(ProcessLookupError):
            hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (length, hard))


MISHAPS: dict[str, Callable[[Sweep, Server, random.Random], None]] = {
    "worker killed": kill_worker,
    "launcher killed": kill_launcher,
    "database restarted": restart_database,
    "disk full": fill_disk,
}
