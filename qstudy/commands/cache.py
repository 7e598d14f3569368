"""`qstudy cache`."""

import json as json_format
import time
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from qstudy.errors import UserError
from qstudy.fields import checked

DAY_S = 86400


def cache(
    cache: Path = Path("cache"), verify: bool = False, prune: bool = False, days: float = 30, json: bool = False
) -> None:
    """List what is cached, how large it is, and when it was used last; verify it; remove what is no longer used.

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

    from qstudy.cache import DAMAGED, entries, parts_of, print_cache, remove_unused, verified

    found = entries(cache)
    if verify:
        found = [verified(entry) for entry in tqdm(found, desc="verify", unit="cache", disable=None, leave=False)]
    removed = [item for entry in found for item in remove_unused(entry, time.time() - days * DAY_S)] if prune else []
    kept = [entry for entry in found if not prune or any(path.exists() for path in parts_of(entry.folder))]
    if json:
        freed = sum(item.size_bytes for item in removed)
        gone = [{"path": str(item.path), "size_bytes": item.size_bytes} for item in removed]
        print(json_format.dumps({"entries": [e.to_dict() for e in kept], "removed": gone, "freed_bytes": freed}))
    else:
        print_cache(cache, kept, removed if prune else None)
    if damaged := [str(entry.folder) for entry in kept if entry.state == DAMAGED]:
        mend = "remove it with `qstudy cache --verify --prune`, the next run builds it again"
        raise UserError(f"Damaged: {', '.join(damaged)}; {mend}.")
