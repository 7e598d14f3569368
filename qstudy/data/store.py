"""Features on disk, one folder per manifest and settings: whole or absent, whoever builds or dies meanwhile.

`cache_dir/KEY/` holds `features.i16` (all frames one after another; int16 multiples of 1 / PER_UNIT, which is exact),
`index.safetensors` (which lines of the manifest they belong to, what was wrong with the others), one `labels-*` table
per tokenizer, and `used`, whose time is that of the last use. KEY hashes the manifest, the feature settings and the
sizes and times of the audio files, so a change of any of them is another folder.
"""

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qstudy.data.check import Problem
from qstudy.data.columns import Table, Texts, damaged, text_columns, within
from qstudy.data.manifest import Line, stamps
from qstudy.locks import share

if TYPE_CHECKING:  # torch takes a second to import; who lists or verifies stores needs none
    from qstudy.data.features import FeatureSettings

FEATURES, INDEX, USED = "features.i16", "index.safetensors", "used"
_VERSION = 3  # raise it when features or files change their meaning
_CHUNK = 1 << 24  # bytes read at a time to verify a file


class Store:
    """A folder of features, mapped, and kept from removal as long as this lives; pickled as its path."""

    def __init__(self, folder: Path, bins: int) -> None:
        """Map a folder; sizes and the index are checked, not every feature (`verify` does that).

        Raises:
            UserError: a file is missing, damaged, or of the wrong size.
        """
        self.folder, self.bins = folder.absolute(), bins
        try:
            share(folder / USED, self)
            self.index = Table(folder / INDEX)
            values = _mapped(folder / FEATURES)
        except (OSError, ValueError) as error:
            raise damaged(folder, error) from error
        _check_index(self.index, bins, len(values))
        self.frames = np.asarray(values).reshape(-1, bins)  # slices of arrays are faster than of memmap
        self.texts = Texts(self.index, "texts")
        self.problems = read_problems(self.index)

    def __reduce__(self) -> tuple[type["Store"], tuple[Path, int]]:
        return Store, (self.folder, self.bins)


def _mapped(path: Path) -> np.ndarray:
    """(values,) int16; a file without any cannot be mapped."""
    return np.memmap(path, np.int16, "r") if path.stat().st_size else np.zeros(0, np.int16)


def _check_index(index: Table, bins: int, values: int) -> None:
    """Raise UserError unless an index describes so many stored values."""
    lengths = index["lengths"]
    if not within(lengths, values + 1) or int(lengths.sum()) * bins != values:
        raise damaged(index.path.parent, f"{FEATURES} has another size than the index says")
    for name, size in (("lines", len(lengths)), ("texts_ends", len(lengths)), ("sums", bins), ("squares", bins)):
        if index[name].shape != (size,):
            raise damaged(index.path, f"{name} are {index[name].shape}, but must be ({size},)")
    if not are_sums(index):
        raise damaged(index.path, "no features have such sums")


def are_sums(table: Table) -> bool:
    """Whether `sums` and `squares` can be those of integers."""
    whole = all(np.issubdtype(table[name].dtype, np.integer) for name in ("sums", "squares"))
    return whole and bool((table["squares"] >= np.abs(table["sums"])).all())


def store_key(manifest: Path, lines: Sequence[Line], settings: "FeatureSettings") -> str:
    """The name of a store: 16 hexadecimal digits.

    The folder is part of it: where an archive or an image of a container sets all times alike, noisy copies have the
    lines, sizes and times of the clean ones.
    """
    digest = hashlib.sha256(json.dumps([_VERSION, asdict(settings), str(manifest.parent.resolve())]).encode())
    digest.update("\n".join(f"{line.number} {line.text}" for line in lines).encode())
    digest.update(stamps(manifest, lines).data)
    return digest.hexdigest()[:16]


def lock_path(folder: Path) -> Path:
    """Who writes a store, or removes it, holds this lock."""
    return folder.with_name(f"{folder.name}.lock")


def draft_path(folder: Path) -> Path:
    """Where a store is written before it gets its name."""
    return folder.with_name(f".{folder.name}.partial")


def verify(folder: Path) -> None:
    """Read all features of a store and its index, and compare them with their checksums.

    Raises:
        UserError: a file is missing or damaged; the message says which.
    """
    expected, found = Table(folder / INDEX).metadata.get("features"), 0
    try:
        with (folder / FEATURES).open("rb") as file:
            while content := file.read(_CHUNK):
                found = zlib.crc32(content, found)
    except OSError as error:
        raise damaged(folder, error) from error
    if expected != found:
        raise damaged(folder, f"the checksum of {FEATURES} differs")


def bin_sums(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and sums of squares over frames (T, bins) int16, exact: (bins,) int64 each."""
    wide = frames.astype(np.int64)
    return wide.sum(0), np.einsum("td,td->d", wide, wide)


def problem_columns(problems: Sequence[Problem]) -> dict[str, np.ndarray]:
    """Problems as columns of a table."""
    lines = np.array([problem.line for problem in problems], np.int64)
    return {"problem_lines": lines, **text_columns("problems", [problem.message for problem in problems])}


def read_problems(table: Table) -> list[Problem]:
    """What `problem_columns` wrote."""
    lines, messages = table["problem_lines"], Texts(table, "problems")
    if len(lines) != len(messages):
        raise damaged(table.path, "not every problem has its line")
    pairs = zip(lines.tolist(), messages, strict=True)
    return [Problem(line, message) for line, message in pairs]
