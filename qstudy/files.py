"""Files that are whole or absent: written under a temporary name, then renamed."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qstudy.errors import UserError

NAME_BYTES = 100
"""Longest safe name in UTF-8; what is put before and behind it still fits into the 255 that file systems allow."""
_SEPARATORS = "/\\:"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on failure it is removed.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
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
    """`text`, if it can be the name of one file or folder anywhere and nothing more.

    Args:
        text: the name, from a user or a stranger.
        field: what the message calls it, such as `study` or `--name`.

    Raises:
        UserError: it is empty or longer than NAME_BYTES, has a separator or a character that does not print, or begins
            with a dot (hidden, or another folder) or a dash (an option).
    """
    if (
        not text.isprintable()
        or set(text) & set(_SEPARATORS)
        or text.strip() != text
        or text[:1] in ("", ".", "-")
        or len(text.encode()) > NAME_BYTES
    ):
        raise UserError(
            f"{field}: {_short(text)} cannot name a file; use letters, digits, _, - and . (at most {NAME_BYTES} bytes, "
            "no separator, no . or - at the beginning)."
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
