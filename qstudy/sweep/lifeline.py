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
