"""Large products beside the time loop: all frames of a batch at once, rows spread over threads.

torch would do them too, but its library takes twice as long on some processors, and wants the integers as floats in
memory of their own; here they are converted on the way into the cache. A group of rows stays there while all weights
pass by (`gemm`); a gradient of weights is summed over chunks of rows, transposed as they come.

What a processor must offer: what `gemm` wants, nothing. Twin: `gemm.reference`, whose sums of whole numbers are equal
to the bit; sums of other floats depend on the order, which is the depth's.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qstudy.jit import compiled
from qstudy.quant.kernels import cell, gemm, ir
from qstudy.quant.kernels.gemm import BLOCK, multiply_f32, multiply_float, multiply_s8

Floats = NDArray[np.float32]

GROUP = 64
"""Rows whose inputs stay in the second-level cache while all weights pass by."""
CHUNK = 256
"""Rows that are summed up at once for a gradient of weights."""
STRIP = 8
"""Rows that are transposed together: whole pages apart, they share a few lines of the first-level cache."""
OFFSET = 128
"""Added to codes, because the kernel takes unsigned bytes."""
USES = (ir, gemm, cell)


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
    rows: NDArray[Any], weight: NDArray[Any], inside: NDArray[np.bool_], out: Floats, first: int, count: int
) -> None:
    """Gradients (N, H) times packed transposed weights: written to out (N, D), zero where not `inside` (N, D).

    `inside` may be of size 0: nothing was clipped. `rows` and `weight` are bits of float32, or of bfloat16 if `rows`
    is int16.
    """
    blocks, depth = weight.shape[0], weight.shape[1]
    sums, zeros = np.empty((GROUP, blocks * BLOCK), np.float32), np.zeros(blocks * BLOCK, np.float32)
    for group in range(GROUP * first, len(rows), GROUP * count):
        size = min(GROUP, len(rows) - group)
        multiply_float(
            rows.itemsize == 2,
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
    rows: NDArray[Any],
    values: NDArray[Any],
    scale: np.float32,
    zero: np.float32,
    out: Floats,
    bias: Floats,
    first: int,
    count: int,
) -> None:
    """Transposed gradients (N, H) times (values - zero) * scale, values (N, D) of any type.

    Args:
        rows: bits of float32, or of bfloat16 (int16).
        values: (N, D).
        scale: factor of the result.
        zero: subtracted from the values.
        out: written, (H, D padded to whole blocks).
        bias: the gradients' sums over N, written (H,).
        first: number of this thread.
        count: number of threads.
    """
    begin, end = rows.shape[1] * first // count, rows.shape[1] * (first + 1) // count
    blocks, words = out.shape[1] // BLOCK, 4 // rows.itemsize
    panel, packed = np.empty((end - begin, CHUNK), rows.dtype), np.zeros(blocks * CHUNK * BLOCK, rows.dtype)
    for j in range(begin, end):
        bias[j] = 0
        for k in range(out.shape[1]):
            out[j, k] = 0
    for chunk in range(0, len(rows), CHUNK):
        size = min(CHUNK, len(rows) - chunk)
        depth = -(-size // words)
        transpose(rows[chunk : chunk + size, begin:end], panel)
        add_rows(rows[chunk : chunk + size, begin:end], bias[begin:end])
        pack_values(values[chunk : chunk + size], zero, words, depth, packed)
        multiply_float(
            words == 2,
            panel.ctypes.data,
            CHUNK * rows.itemsize,
            packed.ctypes.data,
            depth,
            out[begin:].ctypes.data,
            4 * out.shape[1],
            out[begin:].ctypes.data,
            4 * out.shape[1],
            blocks,
            end - begin,
        )
    for j in range(begin, end):
        for k in range(out.shape[1]):
            out[j, k] *= scale


@compiled()
def transpose(rows: NDArray[Any], panel: NDArray[Any]) -> None:
    """rows (n, H) to panel (H, CHUNK); behind the n columns stands a zero."""
    whole = len(rows) // STRIP * STRIP
    for n in range(0, whole, STRIP):
        for j in range(rows.shape[1]):
            for k in range(STRIP):
                panel[j, n + k] = rows[n + k, j]
    for n in range(whole, len(rows)):
        for j in range(rows.shape[1]):
            panel[j, n] = rows[n, j]
    if len(rows) < panel.shape[1]:
        for j in range(rows.shape[1]):
            panel[j, len(rows)] = 0


@compiled(uses=(cell,))
def pack_values(values: NDArray[Any], zero: np.float32, words: int, depth: int, packed: NDArray[Any]) -> None:
    """values - zero (n, D), as weights of a product along n: `packed` in the order of `gemm.pack`, flat."""
    columns = values.shape[1]
    exact, row = np.zeros(columns, np.float32), np.empty(columns, packed.dtype)
    for n in range(depth * words):
        for j in range(columns):
            exact[j] = np.float32(values[n, j]) - zero if n < len(values) else np.float32(0)
        cell.store_bits(exact.view(np.int32), row)
        for column in range(0, columns, BLOCK):
            place = (column * depth + n // words * BLOCK) * words + n % words
            for j in range(min(BLOCK, columns - column)):
                packed[place + j * words] = row[column + j]


@compiled()
def add_rows(rows: NDArray[Any], total: Floats) -> None:
    """Add rows (n, H), bits of float32 or bfloat16, to total (H,)."""
    for n in range(len(rows)):
        row = rows[n]
        for j in range(total.size):
            bits = np.int32(row[j]) if row.itemsize == 4 else np.int32(row[j]) << np.int32(16)
            total[j] += np.int32(bits).view(np.float32)
