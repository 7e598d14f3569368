"""Loops over the weights of a codebook: the nearest entry by one table look-up, and MRACos with its gradient.

A weight over the codebook's scale is t, in units of int8; all entries lie on whole numbers. So halves floor(2 t)
tell the nearest entry, whole numbers floor(t) the region between neighbours: no search. On the CPU one pass over memory
in numba, elsewhere the same in torch: equal to the bit for the nearest entry, up to rounding for MRACos. Weights are
(rows, columns) float32; every loop takes its share of the rows from its last two arguments, see `threads.on_threads`.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qstudy.jit import compiled
from qstudy.threads import on_threads

HIGH = 127  # entries are int8, from -HIGH to HIGH: the accelerator multiplies in int8
AT_CENTROID = np.float32(2e-5)  # of a region's width: rounding of t; so near it counts as the centroid itself
PI = np.float32(math.pi)
ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
LOWEST, HIGHEST = np.float32(-HIGH), np.float32(HIGH - 1)  # whole numbers and halves
LOWEST_HALF, HIGHEST_HALF = np.float32(-2 * HIGH), np.float32(2 * HIGH - 1)
C0, C1, C2, C3, C4, C5, C6 = (np.float32((-1) ** k * math.pi ** (2 * k) / math.factorial(2 * k)) for k in range(7))
S0, S1, S2, S3, S4, S5, S6 = (
    np.float32((-1) ** k * math.pi ** (2 * k + 1) / math.factorial(2 * k + 1)) for k in range(7)
)  # Taylor's series of cos(pi x) and sin(pi x): exact to float32 for |x| <= 1/2, and loops over them vectorize


@compiled()
def _look_up(w: Any, inverse: Any, by_half: Any, out: Any, thread: int, threads: int) -> None:
    for row in range(thread, w.shape[0], threads):
        for column in range(w.shape[1]):
            twice = TWO * (w[row, column] * inverse)
            twice = twice if twice >= LOWEST_HALF else LOWEST_HALF  # NaN becomes the least
            out[row, column] = by_half[int(np.floor(min(twice, HIGHEST_HALF))) + 2 * HIGH]


@compiled({"reassoc"})
def _mracos(w: Any, inverse: Any, low: Any, per_width: Any, slope: Any, sums: Any, thread: int, threads: int) -> None:
    for row in range(thread, w.shape[0], threads):
        total: Any = ZERO
        for column in range(w.shape[1]):
            t = w[row, column] * inverse
            bounded = t if t >= LOWEST else LOWEST  # NaN too: its place is NaN still, and so is the sum
            cell = int(np.floor(min(bounded, HIGHEST))) + HIGH
            place = (t - low[cell]) * per_width[cell]  # 0 and 1 at the centroids
            inside = min(max(place, ZERO), ONE)
            x = inside - HALF
            z = x * x
            cosine = C0 + z * (C1 + z * (C2 + z * (C3 + z * (C4 + z * (C5 + z * C6)))))
            sine = x * (S0 + z * (S1 + z * (S2 + z * (S3 + z * (S4 + z * (S5 + z * S6))))))
            total += abs(cosine) + PI * abs(place - inside)
            away = -sine if place == inside else (ONE if place > ONE else -ONE)
            at_centroid = min(abs(place), abs(place - ONE)) < AT_CENTROID
            slope[row, column] = ZERO if at_centroid else away * (PI * per_width[cell] * inverse)
        sums[row] = total


def look_up(weight: Tensor, scale: Tensor, by_half: Tensor) -> Tensor:
    """The entry of `by_half` (4 * HIGH,) for every weight: shape of weight, dtype of the table.

    Args:
        weight: (rows, columns) float32.
        scale: () float32, above zero.
        by_half_step: what to return where floor(2 * weight / scale) is -2 * HIGH, and so on.
    """
    inverse = 1 / scale
    if weight.device.type == "cpu":
        out = torch.empty(weight.shape, dtype=by_half.dtype)
        on_threads(_look_up, weight.numpy(), np.float32(float(inverse)), by_half.numpy(), out.numpy())
        return out
    return portable_look_up(weight, inverse, by_half)


def portable_look_up(weight: Tensor, inverse: Tensor, by_half: Tensor) -> Tensor:
    """The same in torch, given 1 / scale."""
    halves = torch.floor(2 * (weight * inverse)).nan_to_num(-2 * HIGH).clamp(-2 * HIGH, 2 * HIGH - 1)
    return by_half[halves.long() + 2 * HIGH]


def nearest_entries(table: Tensor) -> Tensor:
    """Index of the nearest entry of an ascending table (K,) int8, by half: (4 * HIGH,) int8."""
    entries = table.int()
    half_way = entries[1:] + entries[:-1]  # in halves
    halves = torch.arange(-2 * HIGH, 2 * HIGH, device=table.device, dtype=torch.int32)
    return torch.bucketize(halves, half_way, right=True).to(torch.int8)


def mracos_sums(weight: Tensor, scale: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of r over all weights, () float32, and its gradient, the weight's shape; see `mracos`."""
    low, per_width = regions(table)
    inverse = 1 / scale
    if weight.device.type == "cpu":
        slope, sums = torch.empty_like(weight), torch.empty(len(weight))
        arrays = (low.numpy(), per_width.numpy(), slope.numpy(), sums.numpy())
        on_threads(_mracos, weight.numpy(), np.float32(float(inverse)), *arrays)
        return sums.sum(), slope
    return portable_mracos_sums(weight, inverse, low, per_width)


def portable_mracos_sums(weight: Tensor, inverse: Tensor, low: Tensor, per_width: Tensor) -> tuple[Tensor, Tensor]:
    """The same in torch, given 1 / scale and what `regions` gives."""
    t = weight * inverse
    cell = torch.floor(t.nan_to_num(-HIGH).clamp(-HIGH, HIGH - 1)).long() + HIGH
    place = (t - low[cell]) * per_width[cell]
    inside = place.clamp(0, 1)
    x = math.pi * (inside - 0.5)
    away = torch.where(place == inside, -torch.sin(x), torch.sign(place))
    away[torch.minimum(place.abs(), (place - 1).abs()) < float(AT_CENTROID)] = 0
    return (torch.cos(x).abs() + math.pi * (place - inside).abs()).sum(), away * (math.pi * per_width[cell] * inverse)


def regions(table: Tensor) -> tuple[Tensor, Tensor]:
    """Lower end and inverse width of the region of every number from -HIGH to HIGH - 1; the outer reach outside."""
    entries = table.int()
    whole = torch.arange(-HIGH, HIGH, device=table.device, dtype=torch.int32)
    region = (torch.bucketize(whole, entries, right=True) - 1).clamp_(0, len(table) - 2)
    return entries[region].float(), 1 / entries.diff()[region].float()
