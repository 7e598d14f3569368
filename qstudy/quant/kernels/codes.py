"""Floats to the integers of an activation quantizer, and accumulators back to floats, in one pass over memory each.

A thread takes its share of the values and writes their codes and whether they were inside. Rounding is an addition and
a subtraction of ROUND, which vectors do; so is clamping, before it. NaN becomes the least code.

What a processor must offer: float32 that rounds as IEEE 754 says; vectors of any width make it fast. Twins, equal to
the bit: `reference`, `rescale_reference`.
"""

import numpy as np
from numpy.typing import NDArray

from qstudy.jit import compiled

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]

ROUND = np.float32(1.5 * 2**23)  # x + ROUND - ROUND is the integer nearest to x, ties to even, if |x| < 2**22


@compiled()
def quantize(
    x: Floats,
    scale: np.float32,
    zero: np.float32,
    low: np.float32,
    high: np.float32,
    integers: NDArray[np.int8],
    inside: NDArray[np.bool_],
    thread: int,
    threads: int,
) -> None:
    """rint(x / scale + zero), clamped, of x (n,) to `integers`; `inside`: what was not clamped. NaN becomes `low`."""
    begin, end = x.size * thread // threads, x.size * (thread + 1) // threads
    values, out, passes = x[begin:end], integers[begin:end], inside[begin:end]
    for j in range(values.size):
        exact = values[j] / scale + zero
        near = exact if exact > low else low
        near = (near if near < high else high) + ROUND - ROUND
        out[j] = np.int8(np.int32(near))
    for j in range(values.size):
        exact = values[j] / scale + zero
        passes[j] = (exact + ROUND - ROUND >= low) & (exact + ROUND - ROUND <= high)


@compiled()
def rescale(accumulators: Integers, scale: Floats, bias: Floats, out: Floats, thread: int, threads: int) -> None:
    """accumulators (N, H) * scale (H,) + bias (H,), of size 0 if there is none, each rounded: to `out` (N, H)."""
    for row in range(len(out) * thread // threads, len(out) * (thread + 1) // threads):
        source, target = accumulators[row], out[row]
        for j in range(target.size):
            target[j] = np.float32(source[j]) * scale[j]
        if bias.size:
            for j in range(target.size):
                target[j] += bias[j]


def reference(
    x: Floats, scale: np.float32, zero: np.float32, low: int, high: int
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """`quantize` in NumPy."""
    whole = np.rint(x / scale + zero)
    return np.nan_to_num(np.clip(whole, low, high), nan=low).astype(np.int8), (whole >= low) & (whole <= high)


def rescale_reference(accumulators: Integers, scale: Floats, bias: Floats) -> Floats:
    """`rescale` in NumPy."""
    y = accumulators.astype(np.float32) * scale
    return y + bias if bias.size else y
