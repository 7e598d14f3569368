"""The command `qstudy cache`: what runs keep for each other, listed, verified and pruned."""

import json as json_format
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from qstudy.errors import UserError
from qstudy.fields import checked
from qstudy.training.cache import DAMAGED, Entry, Removed, entries, remove_unused, verified

DAY_S = 86400


def cache(
    cache: Path = Path("cache"), verify: bool = False, prune: bool = False, days: float = 30, json: bool = False
) -> None:
    """List what is cached, how large it is, and when it was used last; verify it; remove what is no longer used.

    Whatever else lies in the folder is left alone.

    Args:
        cache: Folder of feature caches and float baselines.
        verify: Read all features and compare them with their checksums; damage is an error.
        prune: Remove what was not used for so many days, leftovers of killed processes and, with --verify, what is
            damaged; what is in use stays.
        days: How long something must have been unused to be removed.
        json: Print one JSON object instead of tables.
    """
    checked(Annotated[float, Ge(0), Le(100_000)], days, "days")
    from tqdm import tqdm

    found = entries(cache)
    if verify:
        found = [verified(entry) for entry in tqdm(found, desc="verify", unit="cache", disable=None, leave=False)]
    before = time.time() - days * DAY_S
    doomed = [(entry, math.inf if verify and entry.state == DAMAGED else before) for entry in found if prune]
    removed = [item for entry, limit in doomed for item in remove_unused(entry, limit)]
    sizes = {entry.folder: entry.size_bytes for entry in (entries(cache) if prune else found)}  # after the removal
    kept = [replace(entry, size_bytes=sizes[entry.folder]) for entry in found if entry.folder in sizes]
    if json:
        freed = sum(item.size_bytes for item in removed)
        gone = [{"path": str(item.path), "size_bytes": item.size_bytes} for item in removed]
        print(json_format.dumps({"entries": [e.to_dict() for e in kept], "removed": gone, "freed_bytes": freed}))
    else:
        _print(cache, kept, removed if prune else None)
    if damaged := [str(entry.folder) for entry in kept if entry.state == DAMAGED]:
        mend = "remove it with `qstudy cache --verify --prune`, and the next run builds it again"
        raise UserError(f"Damaged: {', '.join(damaged)}; {mend}.")


def _print(cache: Path, kept: Sequence[Entry], removed: Sequence[Removed] | None) -> None:
    console = Console()
    for kind, columns in _COLUMNS.items():
        if rows := [entry for entry in kept if entry.kind == kind]:
            table = Table(*columns, "size", "last use", "folder", box=SIMPLE_HEAD)
            for entry in rows:
                used = datetime.fromtimestamp(entry.last_used).date().isoformat()
                seen = used if entry.state == "whole" else f"{used}, {entry.state}"
                cells = [show(entry.about) if entry.about else "?" for show in columns.values()]
                table.add_row(*map(escape, [*cells, decimal(entry.size_bytes), seen, entry.folder.name]))
            console.print(table)
    for item in removed or ():
        print(f"Removed {item.path} ({decimal(item.size_bytes)}).")
    if removed is not None:
        print(f"{decimal(sum(item.size_bytes for item in removed))} were freed.")
    print(f"{cache} holds {decimal(sum(entry.size_bytes for entry in kept))}.")


_COLUMNS: dict[str, dict[str, Callable[[dict[str, Any]], str]]] = {
    "features": {
        "features of": lambda about: str(about["manifest"]),
        "utterances": lambda about: f"{about['utterances']:,}",
        "hours": lambda about: f"{about['hours']:.2f}",
    },
    "baselines": {
        "float baseline on": lambda about: str(about["manifest"]),
        "model": lambda about: str(about["model"]),
        "WER": lambda about: f"{100 * about['wer']:.2f} %",
    },
}
