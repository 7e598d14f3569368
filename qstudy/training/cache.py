"""What runs keep for each other, feature caches and float baselines: found, verified and removed."""

import re
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qstudy.data.columns import read_metadata
from qstudy.data.store import INDEX, USED, draft_path, lock_path, verify
from qstudy.errors import UserError
from qstudy.locks import is_held, try_lock
from qstudy.training.record import RECORD_FILE, read_record

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
        model = f"{config['model']['encoder']['name']}, {parameters / 1e6:.2f} M parameters"
        return "whole", {"manifest": config["data"]["train"], "model": model, "wer": wer}
    except (UserError, KeyError, TypeError, AttributeError):
        return DAMAGED, {}


_KINDS: dict[str, Callable[[Path], tuple[str, dict[str, Any]]]] = {"features": _features, "baselines": _baseline}


def verified(entry: Entry) -> Entry:
    """The entry, damaged if its features are."""
    if entry.kind != "features" or not entry.folder.exists() or entry.state == "earlier version":
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
