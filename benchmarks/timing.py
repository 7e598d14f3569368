"""Time several sides so that a disturbance of the machine hits all of them."""

import statistics
import time
from collections.abc import Callable, Mapping

WARM_UP = 2  # calls of each side that do not count: compilation, the first touch of memory
SLOW_MS = 10_000.0  # a side whose call takes longer is called once; what the warm-up saves does not show there


def interleaved(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Call every side once per round, in turn; returns the median milliseconds of each."""
    times = {name: [milliseconds(side)] for name, side in sides.items()}
    quick = {name: side for name, side in sides.items() if times[name][0] < SLOW_MS}
    for _ in range(WARM_UP - 1 + rounds):
        for name, side in quick.items():
            times[name].append(milliseconds(side))
    return {name: statistics.median(each[WARM_UP:] or each) for name, each in times.items()}


def refusal(side: Callable[[], object]) -> str:
    """Why a peer cannot be measured on this processor: the first sentence of its error; empty if it can."""
    try:
        side()
    except RuntimeError as error:  # torch's, for an instruction or an engine that is not there
        return f"does not run on this processor: {str(error).splitlines()[0].partition('. ')[0]}"
    return ""


def milliseconds(side: Callable[[], object]) -> float:
    """The time of one call."""
    start = time.perf_counter()
    side()
    return (time.perf_counter() - start) * 1e3
