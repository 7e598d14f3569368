"""The command `qstudy cache`: what runs keep for each other, listed, verified and pruned."""

import json as json_format
import math
import re
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from qstudy.data.columns import read_metadata
from qstudy.data.store import FEATURES, INDEX, USED, draft_path, lock_path, verify
from qstudy.errors import UserError
from qstudy.fields import checked
from qstudy.locks import is_held, try_lock
from qstudy.training.record import RECORD_FILE, read_record

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

    from qstudy.commands.cache import DAMAGED, entries, print_cache, remove_unused, verified

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
        print_cache(cache, kept, removed if prune else None)
    if damaged := [str(entry.folder) for entry in kept if entry.state == DAMAGED]:
        mend = "remove it with `qstudy cache --verify --prune`, the next run builds it again"
        raise UserError(f"Damaged: {', '.join(damaged)}; {mend}.")


DAMAGED = "damaged"
_NAME = re.compile(r"([0-9a-f]{16})(?:\.lock)?|\.([0-9a-f]{16})\..+")
"""Of a cache's folder or its lock, or of a draft or leftover of it; what is called otherwise is somebody else's."""


@dataclass(frozen=True)
class Entry:
    """One feature cache or float baseline, with all that lies beside it: drafts, leftovers, its lock."""

    kind: str
    """`features` or `baselines`."""
    folder: Path
    """Its final folder, which may not be there yet."""
    state: str
    """`whole`, `in use`, `unfinished`, `damaged`, or `earlier version`."""
    size_bytes: int
    """Of everything."""
    last_used: float
    """Seconds since the epoch."""
    about: dict[str, Any] = field(default_factory=dict)
    """What it was made from."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `last_used` in ISO format, UTC."""
        about = asdict(self)
        used = datetime.fromtimestamp(self.last_used, UTC).isoformat(timespec="seconds")
        return {**about, **about.pop("about"), "folder": str(self.folder), "last_used": used}


@dataclass(frozen=True)
class Removed:
    """Something that was removed."""

    path: Path
    size_bytes: int


def entries(cache: Path) -> list[Entry]:
    """Everything in a cache folder, features first."""
    return [_entry(kind, folder) for kind in _KINDS for folder in _folders(cache / kind)]


def remove_unused(entry: Entry, before: float) -> list[Removed]:
    """Remove an entry that was used last before `before`, else only what killed processes left there.

    Nothing happens while somebody makes or uses it.
    """
    folder = entry.folder
    with ExitStack() as locks:
        for path in [lock_path(folder), *([folder / USED] if (folder / USED).exists() else [])]:
            if (lock := try_lock(path)) is None:
                return []
            locks.enter_context(lock)
        doomed = [*_leftovers(folder), *folder.rglob(".*.tmp")]
        if entry.state == "whole":  # its draft is of no use any more
            doomed.append(draft_path(folder))
        if entry.last_used < before:
            doomed += [path for path in (folder, draft_path(folder)) if path.exists()]
        removed = [_remove(path) for path in doomed if path.exists()]
        if not folder.exists() and not draft_path(folder).exists():
            removed.append(_remove(lock_path(folder)))
    return removed


def _entry(kind: str, folder: Path) -> Entry:
    parts = [path for path in parts_of(folder) if path.exists()]
    state, about = _KINDS[kind](folder)
    if any(path.exists() and is_held(path) for path in (lock_path(folder), folder / USED)):
        state = "in use"
    dated = [*parts, *(path for path in (folder / USED, folder / "record.json") if path.exists())]
    last_used = max(path.stat().st_mtime for path in dated)
    return Entry(kind, folder, state, sum(map(_size, parts)), last_used, about)


def _features(folder: Path) -> tuple[str, dict[str, Any]]:
    """State and contents of a feature cache."""
    if not folder.exists():
        return "unfinished", {}
    if not (folder / INDEX).exists() and (folder / "index.json").exists():
        return "earlier version", {}
    try:
        about = read_metadata(folder / INDEX)
        hours = float(about["seconds"]) / 3600
        return "whole", {"manifest": about["manifest"], "utterances": int(about["utterances"]), "hours": hours}
    except (UserError, KeyError, TypeError, ValueError):
        return DAMAGED, {}


def _baseline(folder: Path) -> tuple[str, dict[str, Any]]:
    """State and contents of a float baseline."""
    if not (folder / RECORD_FILE).exists():
        return "unfinished", {}
    try:
        record = read_record(folder / RECORD_FILE)
        config: Any = record.config
        parameters = sum(layer.get("parameters") or 0 for layer in (record.layers or {}).values())
        wer = record.headline["wer"]
    except (UserError, KeyError, TypeError, AttributeError):
        return DAMAGED, {}
    model = f"{config['model']['encoder']['name']}, {parameters / 1e6:.2f} M parameters"
    return "whole", {"manifest": config["data"]["train"], "model": model, "wer": wer}


_KINDS: dict[str, Callable[[Path], tuple[str, dict[str, Any]]]] = {"features": _features, "baselines": _baseline}


def verified(entry: Entry) -> Entry:
    """The entry, damaged if its features are."""
    if entry.kind != "features" or not (entry.folder / FEATURES).exists() or entry.state == "earlier version":
        return entry
    try:
        verify(entry.folder)
    except UserError:
        return replace(entry, state=DAMAGED)
    return entry


def _folders(parent: Path) -> list[Path]:
    """Final folders of everything that has left a trace in `parent`."""
    found = [_NAME.fullmatch(path.name) for path in parent.iterdir()] if parent.is_dir() else []
    return [parent / name for name in sorted({match[1] or match[2] for match in found if match})]


def _leftovers(folder: Path) -> list[Path]:
    """What only a killed process leaves: half-written by earlier versions, half-removed by this one."""
    return [path for path in folder.parent.glob(f".{folder.name}.*") if path != draft_path(folder)]


def parts_of(folder: Path) -> list[Path]:
    return [folder, draft_path(folder), *_leftovers(folder), lock_path(folder)]


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def _remove(path: Path) -> Removed:
    """Remove a file or folder; a folder is gone at once, or not at all, for whoever opens it."""
    removed = Removed(path, _size(path))
    if path.is_dir() and not path.is_symlink():
        doomed = path.with_name(f".{path.name.lstrip('.').partition('.')[0]}.removed")
        shutil.rmtree(path.rename(doomed))
    else:
        path.unlink(missing_ok=True)
    return removed


def print_cache(cache: Path, kept: Sequence[Entry], removed: Sequence[Removed] | None) -> None:
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
        print(f"{decimal(sum(item.size_bytes for item in removed))} are free again.")
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
