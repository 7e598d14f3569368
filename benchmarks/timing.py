"""Time several sides so that a disturbance of the machine hits all of them."""

import statistics
import time
from collections.abc import Callable, Mapping

WARM_UP = 2  # calls of each side that do not count: compilation, the first touch of memory
SLOW_MS = 10_000.0  # a side that takes longer once it is warm is not called again


def interleaved(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Call every side once per round, in turn; returns the median milliseconds of each."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(WARM_UP + rounds):
        for name, side in sides.items():
            if number < WARM_UP or times[name][WARM_UP - 1] < SLOW_MS:
                times[name].append(milliseconds(side))
    return {name: statistics.median(each[WARM_UP:] or each[-1:]) for name, each in times.items()}


def refusal(side: Callable[[], object]) -> str:
    """Why a peer cannot be measured on this processor: the first sentence of its error; empty if it can.

    Raises:
        RuntimeError: any other, which must not pass for a peer that is not there.
    """
    try:
        side()
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in ("engine", "instruction")):
            raise
        return f"does not run on this processor: {str(error).splitlines()[0].partition('. ')[0]}"
    return ""


def milliseconds(side: Callable[[], object]) -> float:
    """The time of one call."""
    start = time.perf_counter()
    side()
    return (time.perf_counter() - start) * 1e3
