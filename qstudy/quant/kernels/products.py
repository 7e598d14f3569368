"""Large products beside the time loop: all frames of a batch at once, rows spread over threads.

torch would do them too, but its library takes twice as long on some processors, and wants the integers as floats in
memory of their own; here they are converted on the way into the cache. A group of rows stays there while all weights
pass by (`gemm`); a gradient of weights is summed over chunks of rows, read down their columns as they lie.

What a processor must offer: what `gemm` wants, nothing. Twin: `gemm.reference`, whose sums of whole numbers are equal
to the bit; sums of other floats depend on the order, which is the depth's.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qstudy.jit import compiled
from qstudy.quant.kernels import gemm, ir, tiles
from qstudy.quant.kernels.gemm import BLOCK, multiply_f32, multiply_s8, multiply_transposed_f32

Floats = NDArray[np.float32]

GROUP = 64
"""Rows whose inputs stay in the second-level cache while all weights pass by."""
CHUNK = 256
"""Rows that are summed up at once for a gradient of weights."""
STRIP = 128
"""Outputs whose gradients of a chunk stay in the second-level cache while all inputs pass by."""
OFFSET = 128
"""Added to codes, because the kernel takes unsigned bytes."""
USES = (ir, gemm, tiles)


@compiled(uses=USES)
def integers(
    x: NDArray[np.int8],
    weight: NDArray[np.int32],
    start: NDArray[np.int32],
    out: NDArray[np.int32],
    first: int,
    count: int,
) -> None:
    """x (N, D) times packed int8 weights: written to out (N, H).

    Args:
        x: (N, D).
        weight: what `gemm.pack` made of (H, D) int8.
        start: -OFFSET times the sums of the weights' rows, (H padded to whole blocks,).
        out: written.
        first: number of this thread.
        count: number of threads.
    """
    blocks, depth = weight.shape[0], weight.shape[1]
    codes, sums = np.zeros((GROUP, 4 * depth), np.uint8), np.empty((GROUP, blocks * BLOCK), np.int32)
    for group in range(GROUP * first, len(x), GROUP * count):
        rows = min(GROUP, len(x) - group)
        for row in range(rows):
            source, shifted = x[group + row], codes[row]
            for k in range(source.size):
                shifted[k] = np.uint8(np.int32(source[k]) + OFFSET)
        multiply_s8(
            codes.ctypes.data,
            4 * depth,
            weight.ctypes.data,
            depth,
            start.ctypes.data,
            0,
            sums.ctypes.data,
            4 * blocks * BLOCK,
            blocks,
            rows,
        )
        for row in range(rows):
            total, target = sums[row], out[group + row]
            for j in range(target.size):
                target[j] = total[j]


@compiled(uses=USES)
def affine(x: Floats, weight: Floats, bias: Floats, out: Floats, first: int, count: int) -> None:
    """x (N, D) times packed weights, plus bias (H,): written to out (N, H)."""
    blocks, depth = weight.shape[0], weight.shape[1]
    sums, zeros = np.empty((GROUP, blocks * BLOCK), np.float32), np.zeros(blocks * BLOCK, np.float32)
    for group in range(GROUP * first, len(x), GROUP * count):
        rows = min(GROUP, len(x) - group)
        multiply_f32(
            x.ctypes.data + 4 * group * depth,
            4 * depth,
            weight.ctypes.data,
            depth,
            zeros.ctypes.data,
            0,
            sums.ctypes.data,
            4 * blocks * BLOCK,
            blocks,
            rows,
        )
        for row in range(rows):
            source, target = sums[row], out[group + row]
            for j in range(target.size):
                target[j] = source[j] + bias[j]


@compiled(uses=USES)
def input_gradient(
    rows: Floats, weight: Floats, inside: NDArray[np.bool_], out: Floats, first: int, count: int
) -> None:
    """Gradients (N, H) times packed transposed weights: written to out (N, D), zero where not `inside` (N, D).

    `inside` may be of size 0: nothing was clipped.
    """
    blocks, depth = weight.shape[0], weight.shape[1]
    sums, zeros = np.empty((GROUP, blocks * BLOCK), np.float32), np.zeros(blocks * BLOCK, np.float32)
    for group in range(GROUP * first, len(rows), GROUP * count):
        size = min(GROUP, len(rows) - group)
        multiply_f32(
            rows[group:].ctypes.data,
            4 * depth,
            weight.ctypes.data,
            depth,
            zeros.ctypes.data,
            0,
            sums.ctypes.data,
            4 * blocks * BLOCK,
            blocks,
            size,
        )
        for row in range(size):
            source, target = sums[row], out[group + row]
            for j in range(target.size):
                target[j] = source[j]
            if inside.size:
                passes = inside[group + row]
                for j in range(target.size):
                    target[j] = target[j] if passes[j] else np.float32(0)


@compiled(uses=USES)
def weight_gradient(
    rows: Floats,
    values: NDArray[Any],
    scale: np.float32,
    zero: np.float32,
    out: Floats,
    first: int,
    count: int,
) -> None:
    """Transposed gradients (N, H) times (values - zero) * scale, values (N, D) of any type.

    Args:
        rows: (N, H).
        values: (N, D).
        scale: factor of the result.
        zero: subtracted from the values.
        out: written, (H, D padded to whole blocks).
        first: number of this thread.
        count: number of threads.
    """
    begin, end = rows.shape[1] * first // count, rows.shape[1] * (first + 1) // count
    blocks, width, row_bytes = out.shape[1] // BLOCK, out.shape[1], 4 * rows.shape[1]
    packed = np.zeros((blocks, CHUNK, BLOCK), np.float32)
    out[begin:end] = 0
    for chunk in range(0, len(rows), CHUNK):
        size = min(CHUNK, len(rows) - chunk)
        pack_values(values[chunk : chunk + size], zero, packed)
        for strip in range(begin, end, STRIP):
            for block in range(blocks):
                multiply_transposed_f32(
                    rows.ctypes.data + chunk * row_bytes + 4 * strip,
                    row_bytes,
                    packed[block].ctypes.data,
                    size,
                    out.ctypes.data + 4 * (strip * width + block * BLOCK),
                    4 * width,
                    out.ctypes.data + 4 * (strip * width + block * BLOCK),
                    4 * width,
                    1,
                    min(STRIP, end - strip),
                )
    for j in range(begin, end):
        for k in range(width):
            out[j, k] *= scale


@compiled()
def pack_values(values: NDArray[Any], zero: np.float32, packed: Floats) -> None:
    """values - zero (n, D), as weights of a product along n: to packed (blocks, CHUNK, BLOCK)."""
    columns = values.shape[1]
    for block in range(len(packed)):
        first = block * BLOCK
        for n in range(len(values)):
            source, target = values[n, first : first + BLOCK], packed[block, n]
            for j in range(min(BLOCK, columns - first)):
                target[j] = np.float32(source[j]) - zero
