"""Tables on disk: named columns, memory-mapped and checked; rows of different lengths lie one after another."""

import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from qstudy.errors import UserError
from qstudy.files import replacing

Row = TypeVar("Row")
_ABOUT = "about"  # one entry, because safetensors writes several in any order


class Table:
    """Columns of a file, read-only; pickled as its path, so that other processes map the same memory."""

    def __init__(self, path: Path) -> None:
        """Map a table and compare it with its checksum.

        Raises:
            UserError: the file is missing or damaged.
        """
        self.path = path
        self.metadata = read_metadata(path)
        self.columns = _mapped(path)
        expected = self.metadata.pop("checksum", None)
        if expected != _checksum(self.columns, self.metadata):
            raise damaged(path, "the checksum differs")

    def __reduce__(self) -> tuple[type["Table"], tuple[Path]]:
        return Table, (self.path,)

    def __getitem__(self, name: str) -> np.ndarray:
        """A column; raises UserError if there is none."""
        if name not in self.columns:
            raise damaged(self.path, f"it has no column {name}")
        return self.columns[name]


def read_metadata(path: Path) -> dict[str, Any]:
    """What `write_table` was given as metadata, and the checksum; the columns are not read.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with safe_open(path, "numpy") as file:
            about = json.loads(file.metadata()[_ABOUT])
    except (OSError, SafetensorError, TypeError, KeyError, ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if not isinstance(about, dict):
        raise damaged(path, "its description is not a mapping")
    return about


def damaged(path: Path, reason: object) -> UserError:
    """What is said of a file that is not as it was written."""
    return UserError(f"{path} is damaged ({reason}).")


def write_table(path: Path, columns: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write columns and JSON-able metadata in one step; raises as `replacing`."""
    about = {**metadata, "checksum": _checksum(columns, metadata)}
    content = safetensors.numpy.save(dict(columns), {_ABOUT: json.dumps(about)})
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def ragged(name: str, rows: Sequence[np.ndarray], dtype: type[np.generic]) -> dict[str, np.ndarray]:
    """Columns that hold rows (length,) of different lengths: `name`, one after another, and `name_ends`."""
    ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
    return {name: np.concatenate([np.zeros(0, dtype), *rows]).astype(dtype), f"{name}_ends": ends}


def text_columns(name: str, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns that hold texts, as UTF-8."""
    return ragged(name, [np.frombuffer(text.encode(errors="surrogatepass"), np.uint8) for text in texts], np.uint8)


class _Rows(Sequence[Row], ABC):
    """Some rows of a ragged column, made when they are asked for."""

    def __init__(self, table: Table, name: str, items: np.ndarray | None = None) -> None:
        """Take the rows `items` (all of them: None) of the ragged column `name`.

        Raises:
            UserError: the rows do not lie one after another in the column, or there is no such row.
        """
        self._values, self._ends = table[name], table[f"{name}_ends"]
        self._path = table.path
        if self._values.ndim != 1 or self._ends.ndim != 1:
            raise damaged(table.path, f"{name} is not a column")
        self._items = np.arange(len(self._ends)) if items is None else items
        ends = np.concatenate([np.zeros(1, np.int64), self._ends])
        if ends[-1] != len(self._values) or np.any(np.diff(ends) < 0):
            raise damaged(table.path, f"the rows of {name} do not fill it")
        if not within(self._items, len(self._ends)):
            raise damaged(table.path, f"{name} has {len(self._ends)} rows, but others were asked for")

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self._row(item) for item in self._items[index]]
        return self._row(self._items[index])

    def _row(self, item: int) -> Row:
        start = self._ends[item - 1] if item else 0
        return self._made(self._values[start : self._ends[item]])

    @abstractmethod
    def _made(self, values: np.ndarray) -> Row: ...


class Texts(_Rows[str]):
    """Rows of UTF-8."""

    def _made(self, values: np.ndarray) -> str:
        try:
            return values.tobytes().decode(errors="surrogatepass")
        except UnicodeDecodeError as error:
            raise damaged(self._path, error) from error


class Integers(_Rows[list[int]]):
    """Rows of integers."""

    def _made(self, values: np.ndarray) -> list[int]:
        found: list[int] = values.tolist()
        return found


def within(numbers: np.ndarray, count: int) -> bool:
    """Whether all of them (N,) are integers from 0 to count - 1."""
    return numbers.dtype.kind == "i" and (not len(numbers) or 0 <= numbers.min() <= numbers.max() < count)


def _mapped(path: Path) -> dict[str, np.ndarray]:
    from safetensors.torch import load_file  # maps the file, its numpy twin copies it; torch takes a second to import

    columns: dict[str, np.ndarray] = {name: column.numpy() for name, column in load_file(path).items()}
    for column in columns.values():
        column.setflags(write=False)
    return columns


def _checksum(columns: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> str:
    """CRC-32 of everything: for accidents, not against attackers."""
    crc = zlib.crc32(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(columns):
        crc = zlib.crc32(np.ascontiguousarray(columns[name]).data, zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"
