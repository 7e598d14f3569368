"""How many workers a machine bears."""

import os
import sys
from contextlib import suppress
from pathlib import Path

WORKER_BYTES = 1e9  # of one that trains a small recognizer: torch and its libraries alone take half of it
MEMORY = Path("/proc/meminfo")
LIMIT, USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
PARTS = Path("/sys/fs/cgroup/memory.stat")
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
    """Memory that can be had without swapping, within a container's limit; None: this system does not tell."""
    found = []
    with suppress(OSError, StopIteration):
        line = next(line for line in MEMORY.read_text().splitlines() if line.startswith("MemAvailable:"))
        found.append(int(line.split()[1]) * 1024)
    with suppress(OSError, ValueError):  # ValueError: `max`, no limit
        found.append(int(LIMIT.read_text()) - int(USED.read_text()) + _cached_bytes())
    return max(min(found), 0) if found else None


def _cached_bytes() -> int:
    with suppress(OSError):
        parts = dict(line.split() for line in PARTS.read_text().splitlines())
        return sum(int(parts.get(name, 0)) for name in CACHED)
    return 0
