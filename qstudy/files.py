"""Files that are whole or absent: written under a temporary name, then renamed."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qstudy.errors import UserError

NAME_BYTES = 100
"""Longest safe name in UTF-8; what is put before and behind it still fits into the 255 that file systems allow."""
_NAME = re.compile(r"\w[\w.,+=-]*")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on failure it is removed.

    Raises:
        UserError: the disk is full, or the folder cannot be written, or a folder is there already.
    """
    if path.is_dir():
        raise UserError(f"Cannot write {path}: it is a folder; name a file.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}; free space or choose another folder."
        ) from error
    finally:
        with suppress(OSError):  # nothing to remove, or what failed above fails here too
            temporary.unlink()


def require_other(out: Path, option: str, *inputs: Path) -> None:
    """Raise UserError if writing `out` would replace one of the files that are read, by whatever name or link."""
    for path in inputs:
        if out.resolve() == path.resolve() or (out.exists() and path.exists() and out.samefile(path)):
            raise UserError(f"{option}: {out} is what is read ({path}); name another file.")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` in one step; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON from `path`.

    Raises:
        UserError: the file is missing, unreadable, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON (line {error.lineno}: {error.msg}); it may be truncated.") from error


def safe_name(text: str, field: str) -> str:
    """`text`, if it can be the name of one file or folder, in whatever it is written: a shell, a page, a table.

    Args:
        text: the name, from a user or a stranger.
        field: what the message calls it, such as `study` or `--name`.

    Raises:
        UserError: it is empty or longer than NAME_BYTES, begins with a dot (hidden, or another folder) or a dash (an
            option), or has a separator or another character with a meaning of its own.
    """
    if not _NAME.fullmatch(text) or len(text.encode()) > NAME_BYTES:
        raise UserError(
            f"{field}: {_short(text)} cannot name a file: use letters, digits and _ - . , + =, begin with a letter or "
            f"a digit, and stay within {NAME_BYTES} bytes."
        )
    return text


def _short(text: str) -> str:
    return ascii(text if len(text) <= 40 else f"{text[:40]}...")


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(*parts: Any) -> str:
    """Hash JSON-able values (16 hexadecimal digits): equal contents, equal name."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
