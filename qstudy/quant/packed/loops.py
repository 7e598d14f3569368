"""Loops over the rows and frames of packed layers: codes of the inputs, integer products, back to float32.

They compute what `qstudy.quant.integer.layers` does, in the same order, so every result is the same to the bit. A frame
takes some ten microseconds, so that handing over arrays would cost as much as using them: arguments are addresses, kept
alive by the caller, and a plan: numbers and addresses of a layer's constants, int64.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from qstudy.jit import compiled
from qstudy.quant.kernels import cell
from qstudy.quant.kernels.gemv import product

CODE_OFFSET = np.int32(128)
"""The kernel takes codes as unsigned bytes."""
BITS, WEIGHTS, DEPTH, TABLE, BLOCKS, START, SCALE, QPARAMS = range(8)
"""Of a matrix in a plan: width, address of the arranged weights, depth, table, blocks; addresses of where sums begin
(int32), of what one unit of them stands for, and of its inputs' scale, zero, low, high (float32)."""
MATRIX = 8
"""Numbers per matrix."""


@intrinsic
def _pointer(context: Any, address: Any) -> Any:
    """An address as a pointer to anything."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@compiled()
def floats(address, count):
    """What lies there: (count,) float32."""
    return carray(_pointer(address), (count,), np.float32)


@compiled()
def words(address, count):
    """What lies there: (count,) int32."""
    return carray(_pointer(address), (count,), np.int32)


@compiled()
def numbers(address, count):
    """What lies there: (count,) int64."""
    return carray(_pointer(address), (count,), np.int64)


@compiled()
def to_codes(x, qparams, codes):
    """Values x (n,) float32 to codes + 128, u8; qparams: scale, zero point, least and greatest code, float32."""
    scale, zero, low, high = qparams[0], qparams[1], qparams[2], qparams[3]
    for j in range(x.size):
        code = np.rint(x[j] / scale + zero)
        code = high if code > high else (low if code < low else code)
        codes[j] = np.uint8(np.int32(code) + CODE_OFFSET)


@compiled()
def multiply(matrix, codes, sums):
    """One row's accumulators, (padded rows,) int32; matrix: its part of a plan."""
    sums[:] = words(matrix[START], sums.size)
    address = sums.ctypes.data
    product(matrix[BITS], codes.ctypes.data, matrix[WEIGHTS], matrix[DEPTH], matrix[TABLE], address, matrix[BLOCKS])


@compiled()
def affine(plan, x, y, rows, record):
    """A linear layer, row by row.

    Args:
        plan: the matrix, then columns, outputs, padded rows, codes that the kernel reads, address of the bias or 0.
        x: address of the inputs (rows, columns) float32.
        y: of the outputs, written.
        rows: how many.
        record: address for the accumulators (rows, padded rows) int32, or 0.
    """
    matrix = numbers(plan, MATRIX)
    sizes = numbers(plan + 8 * MATRIX, 5)
    columns, outputs, padded, width, bias_address = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
    qparams, scale = floats(matrix[QPARAMS], 4), floats(matrix[SCALE], outputs)
    codes, sums = np.zeros(width, np.uint8), np.empty(padded, np.int32)
    for row in range(rows):
        to_codes(floats(x + 4 * columns * row, columns), qparams, codes)
        multiply(matrix, codes, sums)
        if record:
            words(record + 4 * padded * row, padded)[:] = sums
        out = floats(y + 4 * outputs * row, outputs)
        for j in range(outputs):
            out[j] = np.float32(sums[j]) * scale[j]
        if bias_address:
            bias = floats(bias_address, outputs)
            for j in range(outputs):
                out[j] += bias[j]


@compiled()
def lstm_layers(plan, x, before, after, y, batch, frames, record):
    """LSTM layers, each over all frames before the next.

    Args:
        plan: number of layers, columns, H, padded rows, codes that the kernel reads; then for each layer its input and
            its hidden matrix and the address of its bias (4H,).
        x: address of the inputs (batch, frames, columns) float32.
        before: of the states (2, layers, batch, H) float32: hidden, then cell.
        after: of the states after the last frame, written.
        y: of the last layer's outputs (batch, frames, H) float32, written.
        batch: utterances.
        frames: of each.
        record: address for the accumulators (layers, 2, frames, batch, padded rows) int32, or 0.
    """
    sizes = numbers(plan, 5)
    layers, columns, size, padded, width = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
    gates = 4 * size
    codes, sums = np.zeros((2, width), np.uint8), np.empty((2, padded), np.int32)
    open_gates, closed_gates = np.empty(gates, np.float32), np.empty(gates, np.float32)
    hidden, now, then = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    for layer in range(layers):
        own = numbers(plan + 8 * (5 + layer * (2 * MATRIX + 1)), 2 * MATRIX + 1)
        left, right = own[:MATRIX], own[MATRIX : 2 * MATRIX]
        left_quantizer, right_quantizer = floats(left[QPARAMS], 4), floats(right[QPARAMS], 4)
        left_scale, right_scale, bias = floats(left[SCALE], gates), floats(right[SCALE], gates), floats(own[-1], gates)
        source, inputs = (x, columns) if layer == 0 else (y, size)
        for row in range(batch):
            h_place, c_place = 4 * size * (layer * batch + row), 4 * size * ((layers + layer) * batch + row)
            hidden[:] = floats(before + h_place, size)
            now[:] = floats(before + c_place, size)
            codes[:] = 0
            for t in range(frames):
                frame = row * frames + t
                to_codes(floats(source + 4 * inputs * frame, inputs), left_quantizer, codes[0])
                to_codes(hidden, right_quantizer, codes[1])
                multiply(left, codes[0], sums[0])
                multiply(right, codes[1], sums[1])
                if record:
                    for side in range(2):
                        place = ((layer * 2 + side) * frames + t) * batch + row
                        words(record + 4 * padded * place, padded)[:] = sums[side]
                cell.add_rescaled(sums[0, :gates], sums[1, :gates], left_scale, right_scale, bias, open_gates)
                cell.activate(open_gates, closed_gates)
                cell.advance(closed_gates, now, then, hidden)
                now[:] = then
                floats(y + 4 * size * frame, size)[:] = hidden
            floats(after + h_place, size)[:] = hidden
            floats(after + c_place, size)[:] = now
