"""What a launcher is: it starts `qstudy worker` somewhere, any number of times, and tells how each ended."""

import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple


@dataclass(frozen=True)
class Job:
    """One of a study's workers, wherever it runs: always `qstudy worker` with these arguments."""

    arguments: tuple[str, ...]
    """Of `qstudy worker`."""
    environment: Mapping[str, str]
    """Variables that it needs: the storage's URL, and what the user typed."""
    folder: Path
    """Where it works: relative paths of the study begin here."""
    log: Path | None
    """The file that gets what it prints; None: it is shown to the user."""
    number: int = 0
    """Which of the study's workers it is."""
    of: int = 1
    """How many there are: they divide cores and GPUs among them."""


class End(NamedTuple):
    """How a worker ended."""

    code: int
    """Its exit code; below 0 if it was killed or lost."""
    how: str
    """The same in words."""
    said: str = ""
    """What the command said last, or else its last line, if there is a log."""


class Worker(ABC):
    """A worker that was started."""

    @abstractmethod
    def ended(self) -> End | None:
        """How it ended; None: it works, or waits for its place."""

    def waits(self) -> bool:
        """Whether it has no place yet, and so nothing to put back, where a launcher lets workers wait."""
        return False

    @abstractmethod
    def release(self) -> None:
        """Tell it that nobody holds it any more: it puts its trial back into the queue and ends."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once."""


class Launcher(AbstractContextManager["Launcher"], ABC):
    """Starts workers within a `with` block, which opens what they run on and closes it.

    All of them end with this process, however it dies.
    """

    @abstractmethod
    def workers(self, asked: int | None, one_machine: bool) -> int:
        """How many workers to start; 0: this process does all the work itself.

        Args:
            asked: by the user; None: as many as there are places.
            one_machine: whether the storage is a file, which only this machine reaches.

        Raises:
            UserError: there is no place for any, or they could not reach the storage.
        """

    @abstractmethod
    def start(self, job: Job) -> Worker:
        """Start a worker, or let it wait until there is a place."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""


def described(code: int) -> str:
    """What an exit code says of a process's end."""
    if code == -signal.SIGKILL:
        return "killed; out of memory?"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
