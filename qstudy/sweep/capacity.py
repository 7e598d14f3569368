"""How many workers a machine bears."""

import os
import sys
from contextlib import suppress
from pathlib import Path

WORKER_BYTES = 1e9  # of one that trains a small recognizer: torch and its libraries alone take half of it
MEMORY = Path("/proc/meminfo")
GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")
CACHED = ("inactive_file", "active_file")
"""Parts of what is used that are copies of files, which the system gives back without swapping."""


def fitting_workers(workers: int, gpus: int) -> int:
    """As many of the workers as fit into the free memory, at least one; says so, and when they have too few cores."""
    free = free_bytes()
    fitting = workers if free is None else min(workers, max(int(free // WORKER_BYTES), 1))
    if fitting < workers:
        need = f"{workers} workers need about {workers * WORKER_BYTES / 1e9:.0f} GB"
        print(f"{need}, and {(free or 0) / 1e9:.0f} GB of memory are free: going on with {fitting}.", file=sys.stderr)
    if fitting > max(cores(), gpus):
        print(
            f"{fitting} workers share {cores()} cores and slow each other down; use --workers {max(cores(), gpus)}.",
            file=sys.stderr,
        )
    return fitting


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_bytes() -> int | None:
    """Memory that can be had without swapping, within a container's or a job's limit; None: nobody tells."""
    found = []
    with suppress(OSError, StopIteration):
        line = next(line for line in MEMORY.read_text().splitlines() if line.startswith("MemAvailable:"))
        found.append(int(line.split()[1]) * 1024)
    for group in _groups():
        with suppress(OSError, ValueError):  # ValueError: `max`, no limit
            limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
            found.append(limit - used + _cached_bytes(group))
    return max(min(found), 0) if found else None


def _groups() -> list[Path]:
    """The control groups (version 2) that this process is in, each with a limit of its own, up to the root."""
    own = ""
    with suppress(OSError, StopIteration):
        prefix = "0::/"
        lines = OWN_GROUP.read_text().splitlines()
        own = next(line for line in lines if line.startswith(prefix)).removeprefix(prefix)
    return [group for group in (GROUPS / own, *(GROUPS / own).parents) if group.is_relative_to(GROUPS)]


def _cached_bytes(group: Path) -> int:
    with suppress(OSError):
        parts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return sum(int(parts.get(name, 0)) for name in CACHED)
    return 0
