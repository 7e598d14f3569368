"""Loops over the frames of packed amortized LSTM layers: per frame the arbitrator, the branch that it picks, the cell.

As in `qstudy.quant.packed.loops`, arguments are addresses, kept alive by the caller, and plans. Results are the
eager path's to the bit.
"""

import numpy as np

from qstudy.jit import compiled
from qstudy.quant.kernels import cell, gemv
from qstudy.quant.packed import loops
from qstudy.quant.packed.loops import AFFINE, affine, floats, numbers

INPUT, HIDDEN, OUTPUT, KEPT_INPUTS, KEPT_HIDDEN, WIDTH = range(6)
"""Of a branch: plans of its layers (of the last one 0, where there is none), the columns that it reads (int64; 0: all),
the size of the sum of the first two."""
BRANCH = 6
"""Numbers per branch."""
LAYER = 1 + 2 * BRANCH
"""Numbers per layer: the arbitrator's plan, the full branch, the cheap one."""
RECORDS = 6
"""Addresses per layer for accumulators: the arbitrator's, the full branch's two, the cheap one's three; 0: none."""
USES = (cell, gemv, loops)


@compiled(uses=USES)
def frame(plan, x, y, record, t):
    """A linear layer at frame t: x and y are addresses of float32, record that of the accumulators of all frames."""
    padded = numbers(plan + 8 * AFFINE, 5)[2]
    affine(plan, x, y, 1, record + 4 * padded * t if record else 0)


@compiled(uses=USES)
def picked(plan, kept, source, target):
    """The address of what a layer reads of `source` (n,): its own, or that of `target`, where the kept columns go."""
    if kept == 0:
        return source.ctypes.data
    columns = numbers(kept, numbers(plan + 8 * AFFINE, 5)[0])
    for j in range(columns.size):
        target[j] = source[columns[j]]
    return target.ctypes.data


@compiled(uses=USES)
def branch_gates(branch, x, hidden, kept, first, second, gates, records, t):
    """A branch's pre-activations (4H,) at frame t.

    Args:
        branch: its part of the plan.
        x: inputs (D,) float32.
        hidden: (H,) float32.
        kept: scratch, as wide as either.
        first: scratch, as wide as the sum.
        second: likewise.
        gates: (4H,), written.
        records: its addresses for accumulators.
        t: number of the frame.
    """
    width = branch[WIDTH]
    into = gates[:width] if branch[OUTPUT] == 0 else first[:width]
    frame(branch[INPUT], picked(branch[INPUT], branch[KEPT_INPUTS], x, kept), into.ctypes.data, records[0], t)
    source = picked(branch[HIDDEN], branch[KEPT_HIDDEN], hidden, kept)
    frame(branch[HIDDEN], source, second.ctypes.data, records[1], t)
    for j in range(width):
        into[j] += second[j]
    if branch[OUTPUT]:
        frame(branch[OUTPUT], into.ctypes.data, gates.ctypes.data, records[2], t)


@compiled(uses=USES)
def amortized_layers(plan, x, before, after, y, frames, forced, chosen, records):
    """Layers of one utterance, each over all frames before the next.

    Args:
        plan: number of layers, columns, H, width of the widest sum; then for each layer `LAYER` numbers.
        x: address of the inputs (frames, columns) float32.
        before: of the states (2, layers, H) float32: hidden, then cell.
        after: of the states after the last frame, written.
        y: of the last layer's outputs (frames, H) float32, written.
        frames: how many.
        forced: 1: the full branch at every frame, and no arbitrator.
        chosen: address of the decisions (layers, frames) int64, written: 1 for the full branch.
        records: of the addresses for accumulators, `RECORDS` for each layer.
    """
    sizes = numbers(plan, 4)
    layers, columns, size, width = sizes[0], sizes[1], sizes[2], sizes[3]
    hidden, now, then = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    gates, closed, logit = np.empty(4 * size, np.float32), np.empty(4 * size, np.float32), np.empty(1, np.float32)
    kept = np.empty(max(columns, size), np.float32)
    first, second = np.empty(width, np.float32), np.empty(width, np.float32)
    for layer in range(layers):
        own = numbers(plan + 8 * (4 + LAYER * layer), LAYER)
        sums = numbers(records + 8 * RECORDS * layer, RECORDS)
        decisions = numbers(chosen + 8 * frames * layer, frames)
        source, inputs = (x, columns) if layer == 0 else (y, size)
        h_place, c_place = 4 * size * layer, 4 * size * (layers + layer)
        hidden[:] = floats(before + h_place, size)
        now[:] = floats(before + c_place, size)
        for t in range(frames):
            values = floats(source + 4 * inputs * t, inputs)
            if forced == 0:
                frame(own[0], values.ctypes.data, logit.ctypes.data, sums[0], t)
            if forced or logit[0] > 0:
                decisions[t] = 1
                branch_gates(own[1 : 1 + BRANCH], values, hidden, kept, first, second, gates, sums[1:3], t)
            else:
                decisions[t] = 0
                branch_gates(own[1 + BRANCH :], values, hidden, kept, first, second, gates, sums[3:], t)
            cell.activate(gates, closed)
            cell.advance(closed, now, then, hidden)
            now[:] = then
            floats(y + 4 * size * t, size)[:] = hidden
        floats(after + h_place, size)[:] = hidden
        floats(after + c_place, size)[:] = now
