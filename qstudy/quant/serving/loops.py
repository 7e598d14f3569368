"""Loops over the rows and frames of packed layers: codes of the inputs, integer products, back to float32.

They compute what `qstudy.quant.integer_layers` does, in the same order, so every result is the same to the bit.
"""

import numpy as np

from qstudy.jit import compiled
from qstudy.quant.kernels import cell, gemv

OFFSET = np.int32(128)
product = gemv.product


@compiled()
def to_codes(x, grid, codes):  # type: ignore[no-untyped-def]
    """Values x (n,) float32 to codes + 128, u8; grid: step, zero point, least and greatest code, float32."""
    step, zero, low, high = grid[0], grid[1], grid[2], grid[3]
    for j in range(x.size):
        code = np.rint(x[j] / step + zero)
        code = high if code > high else (low if code < low else code)
        codes[j] = np.uint8(np.int32(code) + OFFSET)


@compiled()
def multiply(plan, codes, sums):  # type: ignore[no-untyped-def]
    """Add one row's product to sums; plan: see `ArrangedMatrix.plan`."""
    product(plan[0], codes.ctypes.data, plan[1], plan[2], plan[3], sums.ctypes.data, plan[4])


@compiled()
def affine(plan, start, scale, bias, grid, width, x, y, sums):  # type: ignore[no-untyped-def]
    """A linear layer, row by row.

    Args:
        plan: of the matrix, int64.
        start: (padded rows,) int32.
        scale: what one unit of an accumulator stands for (H,) float32.
        bias: (H,) float32, or empty.
        grid: of x.
        width: codes that the kernel reads.
        x: (N, D) float32.
        y: (N, H) float32, written.
        sums: (N, padded rows) int32, written: the accumulators.
    """
    codes = np.zeros(width, np.uint8)
    for row in range(x.shape[0]):
        to_codes(x[row], grid, codes)
        total, out = sums[row], y[row]
        total[:] = start
        multiply(plan, codes, total)
        if bias.size:
            for j in range(out.size):
                out[j] = np.float32(total[j]) * scale[j] + bias[j]
        else:
            for j in range(out.size):
                out[j] = np.float32(total[j]) * scale[j]


@compiled()
def lstm_layers(plan, starts, scales, biases, grids, width, x, h, c, y, sums):  # type: ignore[no-untyped-def]
    """LSTM layers, each over all frames before the next.

    Args:
        plan: (layers, 2, .) int64: of the input and of the hidden matrix.
        starts: (layers, 2, padded rows) int32.
        scales: what one unit of an accumulator stands for (layers, 2, 4H) float32.
        biases: (layers, 4H) float32.
        grids: (layers, 2, 4) float32: of the inputs and of the hidden state.
        width: codes that the kernel reads, at most.
        x: (B, T, D) float32.
        h: hidden states (layers, B, H) float32, moved on in place.
        c: cell states, likewise.
        y: outputs of the last layer (B, T, H) float32, written.
        sums: (frames kept, layers, 2, B, padded rows) int32, written: the accumulators, of as many frames as fit.
    """
    gates = y.shape[2] * 4
    codes = np.zeros((2, width), np.uint8)
    nothing = np.zeros(gates, np.int32)
    before, after = np.empty(gates, np.float32), np.empty(gates, np.float32)
    next_cell = np.empty(y.shape[2], np.float32)
    for layer in range(plan.shape[0]):
        for row in range(y.shape[0]):
            codes[:] = 0
            to_codes(h[layer, row], grids[layer, 1], codes[1])
            for t in range(y.shape[1]):
                frame = x[row, t] if layer == 0 else y[row, t]
                to_codes(frame, grids[layer, 0], codes[0])
                kept = t % sums.shape[0]
                for side in range(2):
                    total = sums[kept, layer, side, row]
                    total[:] = starts[layer, side]
                    multiply(plan[layer, side], codes[side], total)
                inputs, hidden = sums[kept, layer, 0, row, :gates], sums[kept, layer, 1, row, :gates]
                cell.add_rescaled(inputs, hidden, nothing, scales[layer, 0], scales[layer, 1], biases[layer], before)
                cell.activate(before, after)
                cell.advance(after, c[layer, row], next_cell, y[row, t])
                c[layer, row, :] = next_cell
                to_codes(y[row, t], grids[layer, 1], codes[1])
            if y.shape[1]:
                h[layer, row, :] = y[row, y.shape[1] - 1]
