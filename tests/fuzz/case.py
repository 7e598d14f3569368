"""What a case is: files in a folder, the command that meets them, and what is known to be wrong with them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from .originals import Originals


@dataclass(frozen=True)
class Attempt:
    """One command in a folder of prepared files."""

    argv: list[str]
    what: str
    """What was changed, in a few words; cases that fail in the same words have the same cause."""
    invalid: bool = False
    """Whether exit code 0 would be a silent acceptance."""
    valid: bool = False
    """Whether exit code 2 would be a false refusal."""
    named: str = ""
    """What a refusal must name: the file."""
    entry: str = "qstudy.cli:main"
    """The function that takes `argv`."""


Maker = Callable[[Random, Originals, Path], Attempt]
"""Writes the files of a case into a folder, all from the random numbers given."""


@dataclass(frozen=True)
class Case:
    """What replays a case."""

    kind: str
    seed: int

    @property
    def random(self) -> Random:
        """The source of everything that varies."""
        return Random(f"{self.kind} {self.seed}")

    @property
    def command(self) -> str:
        """How to run it again; its files stay."""
        return f"python -m tests.fuzz --kind {self.kind} --seed {self.seed}"
