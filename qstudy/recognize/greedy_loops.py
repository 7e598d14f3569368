"""Greedy search of a packed transducer in one compiled call: the joiner for every frame, the predictor for every label.

Products are the packed layers' own (`quant.packed.loops`), to the bit. The joiner's tanh is that of `kernels.cell`,
which differs from torch's in the last bit of a float. Needs nothing of the processor that those loops do not need; the
twin is the search in torch, `greedy.search_in_torch`, which a test holds beside it. As in `loops`, arguments are
addresses and plans.
"""

import numpy as np

from qstudy.jit import compiled
from qstudy.quant.kernels import cell, gemv
from qstudy.quant.kernels.cell import tanh
from qstudy.quant.packed import loops
from qstudy.quant.packed.loops import affine, codes_at, floats, lstm_layers, numbers

(JOINED, LABELS, EMBEDDED, HIDDEN, MULTIPLIES, TABLE, SCALES, SCALE_STEP, MOST, OUTPUT, LSTM, PREDICTOR) = range(12)
"""Of a plan: sizes of the joiner, of its output, of the embedding and of the predictor; 1: the joiner multiplies its
sides; addresses of the embedding's int8 rows and of their float32 scales, and how far apart those are (0: there is but
one); labels that a frame can have; plans of the joiner's output, the predictor's LSTM and the joiner's projection."""
PARTS = 12
BLANK = 0
USES = (cell, gemv, loops)


@compiled(uses=USES)
def greedy_frames(plan, frames, count, predicted, state, labels):
    """Search through frames of one utterance.

    Args:
        plan: of the search.
        frames: address of the projected encoder frames (count, J) float32.
        count: how many.
        predicted: the projected predictor vector (J,) float32, moved on in place.
        state: of the predictor, (2, H) float32: hidden, then cell; moved on in place.
        labels: room for (count * most,) int64, written.

    Returns:
        How many labels there are.
    """
    own = numbers(plan, PARTS)
    size, found = own[JOINED], 0
    joined, logits = np.empty(size, np.float32), np.empty(own[LABELS], np.float32)
    for t in range(count):
        frame, emitted = floats(frames + 4 * size * t, size), 0
        while emitted < own[MOST]:
            for j in range(size):
                joined[j] = tanh(frame[j] * predicted[j] if own[MULTIPLIES] else frame[j] + predicted[j])
            affine(own[OUTPUT], joined.ctypes.data, logits.ctypes.data, 1, 0)
            best = np.argmax(logits)
            if best == BLANK:
                break
            labels[found] = best
            found += 1
            emitted += 1
            advance(own, best, predicted, state)
    return found


@compiled(uses=USES)
def advance(own, label, predicted, state):
    """Move the predictor on by a label; own: the plan's parts, the others as in `greedy_frames`."""
    codes, scale = codes_at(own[TABLE] + own[EMBEDDED] * label, own[EMBEDDED]), floats(own[SCALES], own[LABELS])
    row, output = np.empty(codes.size, np.float32), np.empty(own[HIDDEN], np.float32)
    for j in range(codes.size):
        row[j] = np.float32(codes[j]) * scale[own[SCALE_STEP] * label]
    place = state.ctypes.data
    lstm_layers(own[LSTM], row.ctypes.data, place, place, output.ctypes.data, 1, 1, 0)
    affine(own[PREDICTOR], output.ctypes.data, predicted.ctypes.data, 1, 0)


@compiled(uses=USES)
def greedy_batch(plan, frames, lengths, predicted, hidden, cells, labels, counts, thread, threads):
    """Search through utterances, each on its own.

    Args:
        plan: of the search.
        frames: projected encoder frames (B, T, J) float32.
        lengths: valid ones (B,) int64.
        predicted: (B, J), moved on in place, as are the next two.
        hidden: (B, H).
        cells: (B, H).
        labels: (B, T * most) int64, written.
        counts: how many of them (B,) int64, written.
        thread: number of this thread.
        threads: their number.
    """
    state = np.empty((2, hidden.shape[1]), np.float32)
    for u in range(thread, len(lengths), threads):
        state[0, :], state[1, :] = hidden[u], cells[u]
        counts[u] = greedy_frames(plan, frames[u].ctypes.data, lengths[u], predicted[u], state, labels[u])
        hidden[u, :], cells[u, :] = state[0], state[1]
