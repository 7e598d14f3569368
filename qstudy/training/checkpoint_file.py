"""The file of a checkpoint, whoever wrote it: looked through before torch reads it, so that it costs what it holds.

`torch.load(weights_only=True)` runs no code, but it builds whatever a pickle asks for: a hundred bytes can ask for
gigabytes, as an array, as a tensor without strides, or as lists that hold each other.
"""

import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qstudy.errors import UserError

_TYPES = "Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool"
NEEDED = re.compile(rf"collections OrderedDict|torch\._utils _rebuild_tensor_v2|torch ({_TYPES})Storage")
"""All that tensors and plain values need, as a pickle names it."""
MOST_VALUES = 1_000_000
"""Plain values in a checkpoint, each counted as often as it is met."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint: tensors and plain values.

    Raises:
        UserError: the file is missing, damaged, holds more than tensors and plain values, or would become larger than
            it is.
    """
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}; `qstudy train` writes one.")
    try:
        _require_stored(path)
        with warnings.catch_warnings(action="ignore"):  # of what a foreign pickle may contain
            values = torch.load(path, map_location="cpu", weights_only=True)
        _require_plain(values, path.stat().st_size)
    except UserError as error:
        raise UserError(f"{path} is not a checkpoint of a run: {error}") from error
    except Exception as error:  # a damaged pickle can raise anything; torch's text may tell how to load it nevertheless
        if not _begins_as_zip(path):
            raise UserError(
                f"{path} is not a checkpoint of a run, nor named as another file is; name a .ckpt file, a packed model "
                "(.qst) or a configuration (.yaml)."
            ) from error
        raise UserError(
            f"{path} is not a complete checkpoint of a run ({_reason(error)}); remove it and train again."
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a checkpoint of a run: it does not hold a mapping; train again.")
    return values


def _begins_as_zip(path: Path) -> bool:
    """As a checkpoint that was cut short does too; an empty file may be what is left of one."""
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"")


def _require_stored(path: Path) -> None:
    """
    Raises:
        UserError: entries are compressed, or the pickle names more than it needs.
    """
    with zipfile.ZipFile(path) as file:
        entries = file.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise UserError("its entries are compressed.")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                _require_needed(file.read(entry))


def _require_needed(pickled: bytes) -> None:
    for code, argument, _ in pickletools.genops(pickled):
        named = code.name in ("GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4")
        if named and not NEEDED.fullmatch(str(argument)):
            raise UserError(f"it asks for {str(argument)[:60]!r}, which weights and plain values do not need.")


def _require_plain(values: Any, size_bytes: int) -> None:
    """
    Raises:
        UserError: there are too many values, as where lists hold each other, or the tensors take more than the file.
    """
    waiting, count, taken = [values], 0, 0
    while waiting:
        value = waiting.pop()
        count += 1
        if isinstance(value, Tensor):
            taken += value.numel() * value.element_size()
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            waiting += value
        if count + len(waiting) > MOST_VALUES:
            raise UserError(f"it holds more than {MOST_VALUES:,} values.")
    if taken > size_bytes:
        raise UserError(f"its tensors stand for {taken:,} bytes, but the file has {size_bytes:,}.")


def _reason(error: Exception) -> str:
    first = str(error).splitlines()[0][:200] if str(error) else ""
    return type(error).__name__ if not first or "weights_only" in first or "Weights only" in first else first
