"""The records of a folder, each with its text or with the reason why it cannot be used."""

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from qstudy.errors import UserError
from qstudy.files import parse_json, read_json
from qstudy.secrets import mask_urls
from qstudy.training.record import RECORD_FILE, Record, parse_record

RECORDS = "records.jsonl"
"""A report keeps a copy of its records under this name, so that it can be rebuilt from itself."""
SCREENING = "screening"
"""The folder in a study's that `qstudy.sweep.screening` trains its model in."""


class Read(NamedTuple):
    """A record that was read."""

    source: str
    """File, relative to the folder, and the line in it."""
    record: Record
    content: bytes
    """All of it, compressed: see `unpacked`."""


class Problem(NamedTuple):
    """A record that could not be used."""

    source: str
    message: str


def read_folder(folder: Path, problems: list[Problem]) -> Iterator[Read]:
    """Every record of a study (`runs/*/record.json`) or of a report written earlier (`records.jsonl`), in fixed order.

    Args:
        folder: of the study or report.
        problems: those that cannot be used are added to it.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder of a study, such as studies/digits.")
    for source, read in _sources(folder):
        try:
            yield _read(source, *read())
        except UserError as error:
            said = str(error).replace(f"{folder}/", "").removeprefix(f"{source} is ")
            problems.append(Problem(source, said.rstrip(".")))


def parsed(content: bytes) -> dict[str, Any]:
    """A record's JSON as it is read; empty if there is none of its own."""
    found: dict[str, Any] = json.loads(unpacked(content))
    return found


def unpacked(content: bytes) -> str:
    """A record's JSON, in one line; of thousands only the compressed form stays in memory."""
    return zlib.decompress(content).decode() if content else "{}"


def _read(source: str, values: Any, line: bytes | None) -> Read:
    record = parse_record(values)
    command = mask_urls(record.command or "")  # older versions left some passwords in it
    if record.command and record.command != command:
        record, values, line = replace(record, command=command), {**values, "command": command}, None
    text = line if line is not None else json.dumps(values, ensure_ascii=False).encode()
    return Read(source, record, zlib.compress(text, 1))


def _sources(folder: Path) -> Iterator[tuple[str, Callable[[], tuple[Any, bytes | None]]]]:
    """(source, what reads its JSON, and its text if that is one line)."""
    # A fixed depth rather than `**`: studies link folders, and checkpoints lie deeper.
    found = {path for depth in ("", "*/", "*/*/") for path in folder.glob(f"{depth}{RECORD_FILE}")}
    paths = sorted(path for path in found if not _is_screening(path.parent))
    for path in paths:
        yield str(path.relative_to(folder)), partial(_in_file, path)
    if paths or not (folder / RECORDS).exists():
        return
    with (folder / RECORDS).open("rb") as file:
        for number, line in enumerate(map(bytes.strip, file), start=1):
            if line:
                source = f"{RECORDS}:{number}"
                yield source, partial(_in_line, line, source)


def _is_screening(run: Path) -> bool:
    """Whether a run is the model that a study's candidates were judged by, and none of them."""
    return run.name == SCREENING and (run.parent / "study.yaml").is_file()


def _in_file(path: Path) -> tuple[Any, None]:
    return read_json(path), None


def _in_line(line: bytes, source: str) -> tuple[Any, bytes]:
    return parse_json(line, source), line
