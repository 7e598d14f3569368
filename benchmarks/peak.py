"""`python -m benchmarks.peak SUBJECT SIDE B T U V [J]` prints the bytes that a loss or a head needs on top of what it
gets: see `memory` and `head`.

Resident memory is counted, because no counter sees both torch's and everyone else's allocations.
"""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import head_problem, problem

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): reset the peak resident set size


def resident(field: str) -> int:
    """`VmRSS` (now) or `VmHWM` (the peak) of this process in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())
    if found is None:
        raise OSError(f"{STATUS} has no {field}")
    return int(found[1]) * 1024


SUBJECTS: dict[str, tuple[Mapping[str, Callable[[Any], None]], Callable[..., Any]]] = {
    "loss": (problem.SIDES, problem.Problem.random),
    "head": (head_problem.SIDES, head_problem.HeadProblem.random),
}
"""What is measured: by whom, and over what."""


def main(subject: str, side: str, *shape: int) -> int:
    """The peak above what the process holds before, in bytes."""
    sides, make = SUBJECTS[subject]
    sides[side](make(*(2, 3, 2, 5, 4)[: len(shape)]))  # compile, and load what is loaded lazily
    given = make(*shape)
    CLEAR.write_text(RESET_PEAK)
    before = resident("VmRSS")
    sides[side](given)
    return resident("VmHWM") - before


if __name__ == "__main__":
    print(main(*sys.argv[1:3], *map(int, sys.argv[3:])))
