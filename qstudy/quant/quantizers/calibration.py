"""The range of an activation quantizer, from a histogram of its values.

Every method takes a `Histogram` and the quantizer's integers low..high, and returns the two ends of the range:
symmetric ones, (-end, end), or with zero between them. The searches are in NumPy: for arrays this short, threads only
wait.
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qstudy.quant.quantizers.base import TINY
from qstudy.quant.quantizers.histogram import Histogram

Ends = tuple[float, float]
Method = Callable[[Histogram, int, int, bool], Ends]
Loss = Callable[[Ends], float]

CANDIDATES = 100  # ends tried on each side
ROUNDS = 2  # of choosing one end after the other
CLIPPED = 0.05  # the most of the values that the divergence may clip: more are no outliers
UNSEEN = 1e-10  # probability that a level is granted that nothing fell on


def qparams_of_range(low_end: Tensor, high_end: Tensor, low: int, high: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Scale and zero point, () each, of a quantizer with integers low..high over a range; 0.0 is always a level.

    A zero point of 0 means "symmetric" to the device, which costs a level; where it would be 0 in an asymmetric
    quantizer, it becomes -1 or 1, whichever needs the smaller scale to cover the range.
    """
    if symmetric:
        even = (torch.maximum(low_end.abs(), high_end.abs()) / high).clamp_min(TINY)
        return even, torch.zeros_like(even)
    low_end, high_end = low_end.clamp_max(0), high_end.clamp_min(0)
    scale = ((high_end - low_end) / (high - low)).clamp_min(TINY)
    zero_point = (low - low_end / scale).round().clamp(low, high)
    below = torch.maximum(-low_end / high, high_end / (high + 1))
    above = torch.maximum(-low_end / (high + 2), high_end / max(high - 1, TINY))
    beside = torch.where(below <= above, -1.0, 1.0).to(zero_point)
    covering = torch.minimum(below, above)
    return torch.where(zero_point == 0, covering, scale), torch.where(zero_point == 0, beside, zero_point)


def max_ends(histogram: Histogram, low: int, high: int, symmetric: bool) -> Ends:
    """The extremes."""
    least, greatest = histogram.ends.tolist()
    largest = max(-least, greatest)
    return (-largest, largest) if symmetric else (least, greatest)


def percentile_ends(histogram: Histogram, low: int, high: int, symmetric: bool, percent: float = 99.99) -> Ends:
    """So many percent of the values lie inside, what lies outside is split evenly between both sides."""
    outside = (1 - percent / 100) * float(histogram.counts.sum())
    left, right = histogram.counts.chunk(2)
    width = histogram.reach / len(left)
    least, greatest = histogram.ends.tolist()
    if symmetric:
        end = min(_bins_inside(left.flip(0) + right, outside) * width, max(-least, greatest))
        return -end, end
    low_end = (len(left) - _bins_inside(histogram.counts.flip(0), outside / 2)) * width
    high_end = (_bins_inside(histogram.counts, outside / 2) - len(left)) * width
    return min(max(low_end, least), 0.0), max(min(high_end, greatest), 0.0)


def _bins_inside(counts: Tensor, outside: float) -> int:
    """How many bins, from the first one on, leave at most `outside` counts to the others."""
    remaining = counts.flip(0).cumsum(0).flip(0)  # in this bin and after it
    return int((remaining > outside).sum())


def mse_ends(histogram: Histogram, low: int, high: int, symmetric: bool) -> Ends:
    """The least mean squared error between the values and their levels."""
    counts, centers = histogram.counts.cpu().numpy(), histogram.centers.cpu().numpy()
    width = histogram.reach / (len(counts) // 2)

    def error(ends: Ends) -> float:
        begin, end = torch.tensor(ends, dtype=torch.float64)
        scale, zero_point = (float(number) for number in qparams_of_range(begin, end, low, high, symmetric))
        codes = np.rint(centers / scale + zero_point).clip(low, high)
        squares = np.square((codes - zero_point) * scale - centers)
        fine = scale < 2 * width  # a bin holds several levels: its middle says nothing of the rest
        inside = (codes > low) & (codes < high)
        return float(counts @ np.where(fine & inside, scale**2 / 12, squares))

    return _search(histogram, symmetric, error)


def kl_ends(histogram: Histogram, low: int, high: int, symmetric: bool) -> Ends:
    """The least information lost, as the Kullback-Leibler divergence of the levels' distribution from the values'.

    Made for 8 bits: with few levels a spike looks best where it is spread over few bins, in a range far too small. So
    the bins beside zero count as many as their neighbours (zero itself, as in padding, is always a level), and no more
    than `CLIPPED` of the values may lie outside (a saturated tanh has its spikes at the ends).

    Source: Migacz 2017, "8-bit inference with TensorRT" (GPU Technology Conference).
    """
    left, right = np.split(histogram.counts.cpu().numpy().copy(), 2)
    left[-1], right[0] = left[-2], right[1]
    counts = left[::-1] + right if symmetric else np.concatenate([left, right])
    levels = high + 1 if symmetric else high - low + 1
    middle = 0 if symmetric else len(left)
    width = histogram.reach / len(left)

    def loss(ends: Ends) -> float:
        first = middle + (0 if symmetric else round(ends[0] / width))
        last = middle + max(round(ends[1] / width), 1)
        clipped = counts[:first].sum() + counts[last:].sum()
        return divergence(counts, first, last, levels) if clipped <= CLIPPED * counts.sum() else float("inf")

    return _search(histogram, symmetric, loss)


def divergence(counts: NDArray[np.float64], first: int, last: int, levels: int) -> float:
    """How far bins first..last - 1, merged into so many levels, are from the whole histogram (N,), in nats."""
    if last - first <= levels:
        return float("inf") if last - first < len(counts) else 0.0
    inner = counts[first:last]
    values = inner.copy()
    values[0] += counts[:first].sum()
    values[-1] += counts[last:].sum()
    level = np.arange(len(inner)) * levels // len(inner)
    merged = np.bincount(level, inner, levels)
    filled = np.bincount(level, inner > 0, levels)
    spread = np.where(inner > 0, (merged / filled.clip(1))[level], 0)
    p, q = values / values.sum(), (spread / max(spread.sum(), 1)).clip(UNSEEN)
    held = p > 0
    return float((p[held] * np.log(p[held] / q[held])).sum())


def _search(histogram: Histogram, symmetric: bool, loss: Loss) -> Ends:
    """The ends with the least loss among parts of the extremes: both moved together, then, where they differ, one after
    the other, from there and from the extremes: where few levels jump, either way alone may end in a valley."""
    whole = max_ends(histogram, 0, 0, symmetric)
    parts = torch.linspace(1, 1 / CANDIDATES, CANDIDATES, dtype=torch.float64).tolist()
    together = min(((part * whole[0], part * whole[1]) for part in parts), key=loss)
    if symmetric:
        return together
    found = []
    for best in (whole, together):
        for _ in range(ROUNDS):
            best = min(_high_ends(best, whole, parts), key=loss)
            best = min(_low_ends(best, whole, parts), key=loss)
        found.append(best)
    return min(found, key=loss)


def _high_ends(best: Ends, whole: Ends, parts: list[float]) -> Iterable[Ends]:
    return ((best[0], part * whole[1]) for part in parts)


def _low_ends(best: Ends, whole: Ends, parts: list[float]) -> Iterable[Ends]:
    return ((part * whole[0], best[1]) for part in parts)


METHODS: dict[str, Method] = {"mse": mse_ends, "kl": kl_ends}
