"""Time several sides so that a disturbance of the machine hits all of them."""

import statistics
import time
from collections.abc import Callable, Mapping

WARM_UP = 2  # calls of each side that do not count: compilation, the first touch of memory


def interleaved(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Call every side once per round, in turn; returns the median milliseconds of each."""
    for side in sides.values():
        for _ in range(WARM_UP):
            side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(each) for name, each in times.items()}
