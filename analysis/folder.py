"""A report's folder: what an earlier report wrote there is replaced or removed, and nothing else is touched."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from qstudy.errors import UserError
from qstudy.files import file_hash, read_json, replacing, write_json

MANIFEST = "report.json"
"""Beside the files of a report: their names and SHA-256."""

Content = bytes | Iterable[bytes]
"""Of a file; of one that would fill the memory its pieces, as often as they are asked for."""
Hashes = dict[str, str]
"""File name -> SHA-256."""


def write_report(folder: Path, contents: Mapping[str, Content]) -> None:
    """Write all files of a report, and remove those of an earlier one that this one does not have.

    Raises:
        UserError: a file in the way is no report's, or was changed since; nothing was written then.
    """
    written = {name: _digest(content) for name, content in contents.items()}
    earlier = _own(folder)
    for name in written:
        _require_replaceable(folder / name, {written[name], *(hashes.get(name, "") for hashes in earlier)})
    before = {name: digest for hashes in earlier for name, digest in hashes.items() if _holds(folder / name, digest)}
    write_json(folder / MANIFEST, {"files": written, "before": before})  # who is interrupted finds both his own
    for name, content in contents.items():
        with replacing(folder / name) as temporary, temporary.open("wb") as file:
            file.writelines(_pieces(content))
    for name in before.keys() - written.keys():  # stale: they would tell of other runs
        (folder / name).unlink()
    write_json(folder / MANIFEST, {"files": written})


def named(folder: Path) -> str:
    """A report's folder as a command on its page has it: from the current folder on, or by its name alone."""
    inside = folder.is_absolute() and folder.is_relative_to(Path.cwd())
    shown = folder.relative_to(Path.cwd()) if inside else Path(folder.name) if folder.is_absolute() else folder
    return quote(str(shown))


def _pieces(content: Content) -> Iterable[bytes]:
    return (content,) if isinstance(content, bytes) else content


def _digest(content: Content) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(content):
        digest.update(piece)
    return digest.hexdigest()


def _own(folder: Path) -> list[Hashes]:
    """What earlier reports wrote, by their manifest; nothing without one."""
    path = folder / MANIFEST
    if not path.exists():
        return []
    manifest: Any = read_json(path)
    found: list[Any] = [manifest.get("files"), manifest.get("before", {})] if isinstance(manifest, dict) else []
    if not found or not all(isinstance(hashes, dict) for hashes in found):
        raise UserError(f"--out: {path} was not written by `qstudy report`; move it, or name another folder.")
    return [{name: str(digest) for name, digest in hashes.items() if Path(name).name == name} for hashes in found]


def _require_replaceable(path: Path, own: set[str]) -> None:
    if path.exists() and not any(_holds(path, digest) for digest in own):
        raise UserError(
            f"--out: {path} is in the way: no report has written it, or it was changed since; move it, or name another "
            "folder."
        )


def _holds(path: Path, digest: str) -> bool:
    """Whether this is a file with such content."""
    return path.is_file() and file_hash(path) == digest
