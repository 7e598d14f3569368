"""Loops over the rows and frames of packed layers: codes of the inputs, integer products, back to float32.

They compute what `qstudy.quant.integer.layers` does, in the same order, so every result is the same to the bit: that is
their twin, with `gemv.reference` and `cell.frame_reference`. Inputs of several frames are multiplied at once, hidden
states frame after frame, every second frame from the last block of weights on (`gemv.product`).

A frame takes some ten microseconds, so that handing over arrays would cost as much as using them: arguments are
addresses, kept alive by the caller, and a plan: numbers and addresses of a layer's constants, int64. A plan begins with
the address of what runs it: compiled once, not again into each loop that calls it (`jit.call`). What a processor must
offer is what `kernels.gemv` and `kernels.cell` want.
"""

from typing import Any

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from qstudy.jit import call, compiled
from qstudy.quant.kernels import cell, gemv, ir
from qstudy.quant.kernels.gemv import FORMS, spread

CODE_OFFSET = np.int32(128)
"""The kernel takes codes as unsigned bytes."""
PRODUCT, KIND, WEIGHTS, DEPTH, TABLE, BLOCKS, START, SCALE, QPARAMS = range(9)
"""Of a matrix in a plan: address of `gemv.product`, width of the weights (negative: small), address of the arranged
weights, depth, table, blocks; addresses of where sums begin (int32), of what one unit of them stands for, and of its
inputs' scale, zero, low, high (float32)."""
MATRIX = 9
"""Numbers per matrix."""
AFFINE = 1 + MATRIX
"""Where the sizes stand in the plan of a linear layer."""
LAYER = 2 * MATRIX + 3
"""Numbers per layer of an LSTM."""
TOGETHER = 12
"""Rows whose inputs are multiplied before the cell takes its turn: a weight is read once for all of them."""
USES = (ir, cell, gemv)


@intrinsic
def _pointer(context: Any, address: Any) -> Any:
    """An address as a pointer to anything."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.I8.as_pointer())

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
def doubles(address, count):
    """What lies there: (count,) float64."""
    return carray(_pointer(address), (count,), np.float64)


@compiled()
def codes_at(address, count):
    """What lies there: (count,) int8."""
    return carray(_pointer(address), (count,), np.int8)


@compiled(uses=USES)
def to_codes(x, qparams, codes):
    """Values x (n,) float32 to codes + 128, u8, in the forms that the kernel wants, zeros behind them.

    Args:
        x: the values.
        qparams: scale, zero point, least and greatest code, float32.
        codes: written, (FORMS * width,); width: codes that the kernel reads.
    """
    scale, zero, low, high = qparams[0], qparams[1], qparams[2], qparams[3]
    for j in range(x.size):
        code = np.rint(x[j] / scale + zero)
        code = (code if code < high else high) if code >= low else low  # NaN becomes the least
        codes[j] = np.uint8(np.int32(code) + CODE_OFFSET)
    width = codes.size // FORMS
    codes[x.size : width] = 0
    spread(codes, width)


@compiled(uses=USES)
def multiply(matrix, codes, sums, rows, backwards):
    """Accumulators of some rows.

    Args:
        matrix: its part of a plan.
        codes: (R, FORMS * width) u8, from `to_codes`.
        sums: (R, padded rows) int32, written.
        rows: how many of the R.
        backwards: 1: the last block of weights first.
    """
    start = words(matrix[START], sums.shape[1])
    for row in range(rows):
        sums[row, :] = start
    places = (codes.ctypes.data, matrix[WEIGHTS], matrix[DEPTH], matrix[TABLE], sums.ctypes.data, matrix[BLOCKS])
    call(matrix[PRODUCT], (matrix[KIND], *places, np.int64(rows), np.int64(backwards)))


@compiled()
def affine(plan, x, y, rows, record):
    """`affine_rows`, compiled by itself: its plan begins with its address."""
    return call(numbers(plan, 1)[0], (plan, x, y, np.int64(rows), np.int64(record)))


@compiled(uses=USES)
def affine_rows(plan, x, y, rows, record):
    """A linear layer.

    Args:
        plan: the address of this function and the matrix; then columns, outputs, padded rows, codes that the kernel
            reads, address of the bias or 0.
        x: address of the inputs (rows, columns) float32.
        y: of the outputs, written.
        rows: how many.
        record: address for the accumulators (rows, padded rows) int32, or 0.
    """
    matrix = numbers(plan + 8, MATRIX)
    sizes = numbers(plan + 8 * AFFINE, 5)
    columns, outputs, padded, width, bias_address = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
    qparams, scale = floats(matrix[QPARAMS], 4), floats(matrix[SCALE], outputs)
    together = min(rows, TOGETHER)
    codes, sums = np.empty((together, FORMS * width), np.uint8), np.empty((together, padded), np.int32)
    for first in range(0, rows, TOGETHER):
        count = min(TOGETHER, rows - first)
        for row in range(count):
            to_codes(floats(x + 4 * columns * (first + row), columns), qparams, codes[row])
        multiply(matrix, codes, sums, count, 0)
        for row in range(count):
            if record:
                words(record + 4 * padded * (first + row), padded)[:] = sums[row]
            out = floats(y + 4 * outputs * (first + row), outputs)
            for j in range(outputs):
                out[j] = np.float32(sums[row, j]) * scale[j]
            if bias_address:
                bias = floats(bias_address, outputs)
                for j in range(outputs):
                    out[j] += bias[j]
    return 0


@compiled()
def lstm_layers(plan, x, before, after, y, batch, frames, record):
    """`lstm_stack`, compiled by itself: its plan begins with its address."""
    places = (plan, x, before, after, y)
    return call(numbers(plan, 1)[0], (*places, np.int64(batch), np.int64(frames), np.int64(record)))


@compiled(uses=USES)
def lstm_stack(plan, x, before, after, y, batch, frames, record):
    """LSTM layers, each over all frames before the next.

    Args:
        plan: the address of this function, number of layers, columns, H, padded rows; then for each layer its input and
            its hidden matrix, the codes that the kernel reads of either, and the address of its bias (4H,).
        x: address of the inputs (batch, frames, columns) float32.
        before: of the states (2, layers, batch, H) float32: hidden, then cell.
        after: of the states after the last frame, written.
        y: of the last layer's outputs (batch, frames, H) float32, written.
        batch: utterances.
        frames: of each.
        record: address for the accumulators (layers, 2, frames, batch, padded rows) int32, or 0.
    """
    sizes = numbers(plan + 8, 4)
    layers, columns, size, padded = sizes[0], sizes[1], sizes[2], sizes[3]
    room, part = 4 * size * batch, LAYER * 8
    record_bytes = 4 * 2 * frames * batch * padded if record else 0
    for layer in range(layers):
        own = numbers(plan + 8 * 5 + layer * part, LAYER)
        source, inputs = (x, columns) if layer == 0 else (y, size)
        hidden = floats(after + layer * room, batch * size).reshape(batch, size)
        cells = floats(after + (layers + layer) * room, batch * size).reshape(batch, size)
        hidden.reshape(-1)[:] = floats(before + layer * room, batch * size)
        cells.reshape(-1)[:] = floats(before + (layers + layer) * room, batch * size)
        lstm_layer(own, source, inputs, hidden, cells, y, frames, padded, record + layer * record_bytes)
    return 0


@compiled(uses=USES)
def lstm_layer(own, x, columns, hidden, cells, y, frames, padded, record):
    """One layer of `lstm_layers`, some frames at a time: first their inputs' products, then frame after frame the rest.

    Args:
        own: its part of the plan.
        x: address of the inputs (batch, frames, columns).
        columns: their size.
        hidden: states (batch, H), moved on in place.
        cells: likewise.
        y: address of the outputs (batch, frames, H), written; may be that of x.
        frames: how many.
        padded: rows of the matrices.
        record: address for the accumulators (2, frames, batch, padded rows) int32, or 0.
    """
    batch, size = hidden.shape
    gates, chunk = 4 * size, max(min(frames, TOGETHER // batch), 1)
    left, right = own[:MATRIX], own[MATRIX : 2 * MATRIX]
    left_scale, right_scale, bias = floats(left[SCALE], gates), floats(right[SCALE], gates), floats(own[-1], gates)
    codes = np.empty((chunk * batch, FORMS * own[-3]), np.uint8)
    hidden_codes = np.empty((batch, FORMS * own[-2]), np.uint8)
    sums, hidden_sums = np.empty((chunk * batch, padded), np.int32), np.empty((batch, padded), np.int32)
    opened, closed, then = np.empty(gates, np.float32), np.empty(gates, np.float32), np.empty(size, np.float32)
    for first in range(0, frames, chunk):
        count = min(chunk, frames - first)
        for t in range(count):
            for row in range(batch):
                place = x + 4 * columns * (row * frames + first + t)
                to_codes(floats(place, columns), floats(left[QPARAMS], 4), codes[t * batch + row])
        multiply(left, codes, sums, count * batch, 0)
        for t in range(count):
            for row in range(batch):
                to_codes(hidden[row], floats(right[QPARAMS], 4), hidden_codes[row])
            multiply(right, hidden_codes, hidden_sums, batch, (first + t) % 2)
            here = sums[t * batch : (t + 1) * batch]
            if record:
                words(record + 4 * padded * batch * (first + t), batch * padded)[:] = here.reshape(-1)
                place = record + 4 * padded * batch * (frames + first + t)
                words(place, batch * padded)[:] = hidden_sums.reshape(-1)
            for row in range(batch):
                summed = hidden_sums[row, :gates]
                cell.add_rescaled(here[row, :gates], summed, left_scale, right_scale, bias, opened)
                cell.activate(opened, closed)
                cell.advance(closed, cells[row], then, hidden[row])
                cells[row, :] = then
                floats(y + 4 * size * (row * frames + first + t), size)[:] = hidden[row]
