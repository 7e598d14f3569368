"""A store that is being written, and goes on where a killed writer was.

`cache_dir/.KEY.partial/` holds `store/`, which becomes `cache_dir/KEY/` when it is whole, and `journal.jsonl`: one line
for each block of the manifest whose features are written, with their checksum. Who goes on trusts what agrees with it,
up to a problem that has passed.
"""

import json
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from qstudy.data.check import Problem
from qstudy.data.store import FEATURES, bin_sums
from qstudy.errors import UserError

_JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class Computed:
    """One line of the manifest."""

    line: int
    """Its number."""
    frames: np.ndarray
    """(frames, bins) int16 features; no frame if there is a problem."""
    problem: Problem | None = None


@dataclass(frozen=True)
class Block:
    """What became of some lines of the manifest: each is either among `lines` or among `problems`."""

    lines: list[int]
    """Numbers of the sound ones."""
    lengths: list[int]
    """Their frames."""
    problems: list[tuple[int, str]]
    """Number and reason of the others."""
    checksum: int
    """CRC-32 of all features up to here."""


class Draft:
    """The caller holds the store's lock."""

    def __init__(self, folder: Path, bins: int, still_broken: Callable[[set[int]], bool] = lambda lines: True) -> None:
        """Go on with what is in `folder`, or begin.

        Args:
            folder: of the draft.
            bins: of a frame.
            still_broken: whether the lines of these numbers still have a problem, all of them.
        """
        self.folder, self.store = folder, folder / "store"
        if folder.is_symlink() or self.store.is_symlink():
            raise UserError(f"{folder} is a link, not a folder of a cache; remove it.")
        self.store.mkdir(parents=True, exist_ok=True)
        self.blocks: list[Block] = []
        self.checksum = 0
        self.sums, self.squares = np.zeros((2, bins), np.int64)
        self._still_broken = still_broken
        self._features, self._journal = _opened(self.store / FEATURES), _opened(folder / _JOURNAL)
        self._resume()

    @property
    def done(self) -> int:
        """How many lines of the manifest are behind us."""
        return sum(len(block.lines) + len(block.problems) for block in self.blocks)

    @property
    def lines(self) -> list[int]:
        """Numbers of the sound lines."""
        return [line for block in self.blocks for line in block.lines]

    @property
    def lengths(self) -> list[int]:
        """Frames of the sound lines."""
        return [length for block in self.blocks for length in block.lengths]

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with the others."""
        return [Problem(line, message) for block in self.blocks for line, message in block.problems]

    def add(self, computed: Sequence[Computed]) -> None:
        """Write one block: features first, then the journal's line that vouches for them."""
        frames = np.concatenate([item.frames for item in computed])
        sound = [item for item in computed if item.problem is None]
        block = Block(
            lines=[item.line for item in sound],
            lengths=[len(item.frames) for item in sound],
            problems=[(item.problem.line, item.problem.message) for item in computed if item.problem is not None],
            checksum=zlib.crc32(frames.data, self.checksum),
        )
        for file, content in ((self._features, frames.data), (self._journal, _encoded(block))):
            file.write(content)
            file.flush()
        self._count(block, frames)

    def close(self) -> None:
        """Let the files go; the features are on the disk then, whatever happens to the machine."""
        with self._features, self._journal:
            os.fsync(self._features.fileno())

    def _resume(self) -> None:
        """Count the blocks that are whole, and cut off what is behind them."""
        whole = 0
        for line in self._journal:
            if not self._accept(line):
                break
            whole += len(line)
        _cut(self._journal, whole)
        _cut(self._features, sum(self.lengths) * len(self.sums) * np.dtype(np.int16).itemsize)

    def _accept(self, line: bytes) -> bool:
        """Count a block if the journal's line is whole, the features agree with it, and no problem has passed."""
        block = _decoded(line)
        if block is None or not self._still_broken({number for number, _ in block.problems}):
            return False
        stored = os.fstat(self._features.fileno()).st_size
        if sum(block.lengths) * len(self.sums) * np.dtype(np.int16).itemsize > stored:
            return False
        values = np.fromfile(self._features, np.int16, sum(block.lengths) * len(self.sums))
        if zlib.crc32(values.data, self.checksum) != block.checksum:
            return False
        self._count(block, values.reshape(-1, len(self.sums)))
        return True

    def _count(self, block: Block, frames: np.ndarray) -> None:
        sums, squares = bin_sums(frames)
        self.sums, self.squares = self.sums + sums, self.squares + squares
        self.checksum = block.checksum
        self.blocks.append(block)


def _opened(path: Path) -> BinaryIO:
    """A file of the draft; one that is a link, which a stranger's cache may hold, goes: it leads to another's file."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(f"{path} is not a file of a cache; remove it.")
    path.touch()
    return os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW), "r+b")


def _encoded(block: Block) -> bytes:
    return json.dumps(asdict(block)).encode() + b"\n"


def _decoded(line: bytes) -> Block | None:
    """The block of a line of the journal; None if it was being written when the build stopped."""
    try:
        block = Block(**json.loads(line)) if line.endswith(b"\n") else None
        return block if block is None or _plausible(block) else None
    except (ValueError, TypeError, RecursionError):
        return None


def _plausible(block: Block) -> bool:
    """Whether a block's numbers can be what `add` writes."""
    numbers = [*block.lines, *block.lengths, block.checksum, *(line for line, _ in block.problems)]
    return len(block.lines) == len(block.lengths) and all(isinstance(n, int) and n >= 0 for n in numbers)


def _cut(file: BinaryIO, size: int) -> None:
    file.truncate(size)
    file.seek(size)
