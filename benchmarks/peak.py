"""`python -m benchmarks.peak SIDE B T U V` prints the bytes that a loss needs on top of its logits: see `memory`.

Resident memory is counted, because no counter sees both torch's and everyone else's allocations.
"""

import re
import sys
from pathlib import Path

from benchmarks.problem import SIDES, Problem

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): reset the peak resident set size


def resident(field: str) -> int:
    """`VmRSS` (now) or `VmHWM` (the peak) of this process in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())
    if found is None:
        raise OSError(f"{STATUS} has no {field}")
    return int(found[1]) * 1024


def main(side: str, *shape: int) -> int:
    """The peak above what the process holds before, in bytes."""
    SIDES[side](Problem.random(2, 3, 2, 5))  # compile, and load what is loaded lazily
    problem = Problem.random(*shape)
    CLEAR.write_text(RESET_PEAK)
    before = resident("VmRSS")
    SIDES[side](problem)
    return resident("VmHWM") - before


if __name__ == "__main__":
    print(main(sys.argv[1], *map(int, sys.argv[2:])))
