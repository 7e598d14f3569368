"""Processes that end together: workers with the sweep that started them, however it dies; each in good order."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qstudy.errors import INTERRUPTED

LIFELINE_VARIABLE = "QSTUDY_LIFELINE"
"""Set for a process whose standard input is a pipe from the one that started it, and closes when that one ends."""
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LAST_RESORT_S = 60.0  # a step, a checkpoint, and the trial is back in the queue: that takes seconds


@contextmanager
def stoppable() -> Iterator[None]:
    """Within it, SIGTERM and SIGHUP (the terminal was closed) do what Ctrl-C does, unless they are ignored (nohup)."""
    signals = [signal.SIGTERM, signal.SIGHUP] if threading.current_thread() is threading.main_thread() else []
    before = {number: signal.getsignal(number) for number in signals}
    heard = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    try:
        for number in heard:
            signal.signal(number, _interrupt)
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Within it, the first signal that would interrupt waits for the end: a database's transaction is done as a whole.

    One that is broken off may hold its lock for as long as the exception is looked at, and whoever looks at it could
    not put a trial back. A second signal does not wait, as a database that is away can hang. Other threads than the
    main one, which signals do not reach, find nothing changed.
    """
    main = threading.current_thread() is threading.main_thread()
    before = {number: handler for number in ENDS if main and callable(handler := signal.getsignal(number))}
    waiting: list[signal.Signals] = []

    def pass_on() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        while waiting:
            number = waiting.pop()
            before[number](number, None)

    def wait(number: int, _: Any) -> None:
        waiting.append(signal.Signals(number))
        if len(waiting) > 1:
            pass_on()

    for number in before:
        signal.signal(number, wait)
    try:
        yield
    finally:
        pass_on()


def end_with_parent() -> bool:
    """End as after Ctrl-C when the process that started this one has ended; False: nobody holds the other end."""
    if os.environ.pop(LIFELINE_VARIABLE, None) is None:
        return False
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs have it ignored
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray's have it blocked
    threading.Thread(target=_watch, daemon=True).start()
    return True


def _watch() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(LAST_RESORT_S)
    os._exit(INTERRUPTED)


def _interrupt(_: int, frame: Any) -> None:
    """What Ctrl-C does at the moment: while training it lets the step end, and a checkpoint be written."""
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)
