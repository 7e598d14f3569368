"""Files that are whole or absent: written under a temporary name, then renamed."""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

from qstudy.errors import UserError

NAME_BYTES = 100
"""Longest safe name in UTF-8; what is put before and behind it still fits into the 255 that file systems allow."""
DIGITS = 20
"""Longest whole number in JSON: those of 64 bits."""
DEPTH = 50
"""Deepest nesting in JSON: far from what recursion can bear."""
PICTURES = (".png", ".svg", ".pdf")
_NAME = re.compile(r"\w[\w.,+=-]*")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on failure it is removed.

    Raises:
        UserError: the disk is full, the folder cannot be written, or what is there is no file.
    """
    require_file(path)
    temporary = path.with_name(f".{path.name}.{token_hex(8)}.tmp")  # other threads and machines may write it too
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


def require_file(out: Path) -> None:
    """Raise UserError where no file can be: a folder, or a device, which a file must not replace, is there, or a file
    where its folder would be."""
    if out.exists() and not out.is_file():
        raise UserError(f"Cannot write {out}: it already exists and is not a regular file; choose another name.")
    there = next((folder for folder in out.parents if folder.exists()), None)
    if there is not None and not there.is_dir():
        raise UserError(f"Cannot write {out}: {there} is not a folder; choose another name.")


def refuse_endless(path: Path) -> None:
    """Raise UserError where something is that could be read for ever: a pipe or a device; or a folder."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a file.")


def require_picture(path: Path, option: str = "--plot") -> None:
    """Raise UserError unless a picture can be written to a file of that name; `option` gives it."""
    if path.suffix not in PICTURES:
        raise UserError(f"{option}: {path} must end in {', '.join(PICTURES)}.")


def require_other(out: Path, option: str, *inputs: Path) -> None:
    """Raise UserError if writing `out` would replace one of the files that are read, by whatever name or link."""
    for path in inputs:
        if out.resolve() == path.resolve() or (out.exists() and path.exists() and out.samefile(path)):
            raise UserError(f"{option}: {out} is also an input ({path}); choose another name.")


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
    refuse_endless(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    return parse_json(content, str(path))


def parse_json(content: bytes, source: str) -> Any:
    """The value of a JSON text, whoever wrote it: what is ambiguous, or breaks who uses it later, is refused.

    Args:
        content: UTF-8.
        source: where it comes from, for the message.

    Raises:
        UserError: it is not JSON or UTF-8, a key occurs twice, a number is too large or none, or it is nested deeply.
    """
    try:
        value = json.loads(
            content.decode(), object_pairs_hook=_unique, parse_int=_integer, parse_float=_finite, parse_constant=_finite
        )
        _check_depth(value)
        if b"\\ud" in content.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise UserError(f"{source} is not UTF-8 text ({error.reason}).") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{source} is not valid JSON (line {error.lineno}: {error.msg}); it may be truncated."
        ) from error
    except RecursionError as error:
        raise UserError(f"{source} is not valid JSON: it is nested more than {DEPTH} times.") from error
    except ValueError as error:
        raise UserError(f"{source} is not valid JSON: {error}.") from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {_short(twice)} occurs twice")
    return found


def _integer(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"the number {text[:DIGITS]}... has more than {DIGITS} digits")
    return int(text)


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:DIGITS]} is not a finite number")
    return number


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise RecursionError


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


def rows_hash(rows: Iterable[Sequence[int]]) -> str:
    """`content_hash` of a list of lists, of which there may be too many for one string."""
    digest = hashlib.sha256(b"[[")
    for number, row in enumerate(rows):
        digest.update((", " * (number > 0) + json.dumps(row)).encode())
    digest.update(b"]]")
    return digest.hexdigest()[:16]
