"""Loops over the frames of packed Conformer blocks: all of a chunk, block after block, in one compiled call.

As in `qstudy.quant.packed.loops`, arguments are addresses, kept alive by the caller, and plans. Products are the
integers that the eager path computes; what lies between them (softmax, normalization, SiLU) is float32 in an order of
its own, so that results may differ from the eager path's in the last bits of a float, before they are rounded to codes.
"""

import math

import numpy as np

from qstudy.jit import compiled
from qstudy.quant.kernels import cell, gemv
from qstudy.quant.kernels.cell import sigmoid
from qstudy.quant.packed import loops
from qstudy.quant.packed.loops import affine, codes_at, floats, numbers

HEADER = 7
"""Numbers at the start of a plan: blocks, D, inner size, heads, left, kernel frames, floats of one block's state."""
(
    FIRST_NORM,
    FIRST_EXPAND,
    FIRST_CONTRACT,
    NORM,
    QKV,
    POSITIONS,
    POSITION_SCALE,
    POSITION_BIAS,
    QPARAMS,
    OUTPUT,
    GATE_NORM,
    GATE,
    DEPTHWISE,
    DEPTHWISE_SCALE,
    DEPTHWISE_BIAS,
    INNER_NORM,
    CONTRACT,
    SECOND_NORM,
    SECOND_EXPAND,
    SECOND_CONTRACT,
    FINAL_NORM,
) = range(21)
"""Of a block in a plan: addresses of what it computes with. Norms: weights, then biases, then epsilon, float32. Affine
maps: plans of `loops.affine`. Grouped ones: int8, the float32 that one unit of each sum stands for, biases. QPARAMS:
scale and largest code of: queries and keys of the scores, queries of the positions, probabilities and values of the
mixture, inputs of the depthwise convolution, float32; and the factor of the queries."""
PARTS = 21
HALF = np.float32(0.5)
USES = (cell, gemv, loops)


@compiled(uses=USES)
def normalize(part, x, y):
    """Layer normalization of x (D,) to y (D,)."""
    size = x.size
    constants = floats(part, 2 * size + 1)
    mean = 0.0
    for j in range(size):
        mean += x[j]
    mean /= size
    variance = 0.0
    for j in range(size):
        variance += (x[j] - mean) ** 2
    factor = np.float32(1.0 / math.sqrt(variance / size + constants[2 * size]))
    center = np.float32(mean)
    for j in range(size):
        y[j] = (x[j] - center) * factor * constants[j] + constants[size + j]


@compiled(uses=USES)
def silu(x):
    """x (N,) becomes x * sigmoid(x)."""
    for j in range(x.size):
        x[j] = x[j] * sigmoid(x[j])


@compiled(uses=USES)
def quantize(x, scale, high, codes):
    """x (N,) to codes (N,) int8, symmetric; NaN becomes the least, as everywhere."""
    for j in range(x.size):
        code = np.rint(x[j] / scale)
        codes[j] = np.int8(high if code > high else (code if code >= -high else -high))


@compiled(uses=USES)
def dot(a, b):
    """Sum of products of int8 (N,), int32."""
    total = np.int32(0)
    for j in range(a.size):
        total += np.int32(a[j]) * np.int32(b[j])
    return total


@compiled(uses=USES)
def feed_forward(norm, expand, contract, x, inner, y):
    """x (D,) becomes x + half of the module's result; inner, y: room for (inner,) and (D,)."""
    normalize(norm, x, y)
    affine(expand, y.ctypes.data, inner.ctypes.data, 1, 0)
    silu(inner)
    affine(contract, inner.ctypes.data, y.ctypes.data, 1, 0)
    for j in range(x.size):
        x[j] += HALF * y[j]


@compiled(uses=USES)
def push(window, seen, new):
    """Put new (D,) behind the `seen` frames of window (most + 1, D); returns how many there are."""
    window[seen] = new
    return seen + 1


@compiled(uses=USES)
def drop_first(window, count):
    """Move the frames 1..count-1 of window (N, D) one to the front."""
    for t in range(count - 1):
        window[t] = window[t + 1]


@compiled(uses=USES)
def attend(part, heads, left, x, keys, values, seen, y):
    """x (D,) becomes x + the attention over `seen` frames before and itself; keys, values: (left + 1, D), pushed to."""
    size = x.size
    width = size // heads
    qparams = floats(part[QPARAMS], 13)
    projected = np.empty(3 * size, np.float32)
    normalize(part[NORM], x, y)
    affine(part[QKV], y.ctypes.data, projected.ctypes.data, 1, 0)
    query = projected[:size]
    for j in range(size):
        query[j] = query[j] * qparams[12]
    count = push(keys, seen, projected[size : 2 * size])
    push(values, seen, projected[2 * size :])
    query_codes, position_codes = np.empty(size, np.int8), np.empty(size, np.int8)
    codes = np.empty(count * size, np.int8)
    quantize(query, qparams[0], qparams[1], query_codes)
    quantize(query, qparams[4], qparams[5], position_codes)
    quantize(keys[:count].reshape(-1), qparams[2], qparams[3], codes)
    table = codes_at(part[POSITIONS], heads * (left + 1) * width)
    scale, bias = floats(part[POSITION_SCALE], heads * (left + 1)), floats(part[POSITION_BIAS], heads * (left + 1))
    unit = qparams[0] * qparams[2]
    weights = np.empty((heads, count), np.float32)
    for head in range(heads):
        mine = slice(head * width, (head + 1) * width)
        for t in range(count):
            score = np.float32(dot(query_codes[mine], codes[t * size + head * width : t * size + (head + 1) * width]))
            row = head * (left + 1) + left + 1 - count + t
            place = np.float32(dot(position_codes[mine], table[row * width : (row + 1) * width]))
            weights[head, t] = score * unit + (place * scale[row] + bias[row])
        softmax(weights[head])
    seen_codes = np.empty(heads * count, np.int8)
    quantize(weights.reshape(-1), qparams[6], qparams[7], seen_codes)
    quantize(values[:count].reshape(-1), qparams[8], qparams[9], codes)
    unit = qparams[6] * qparams[8]
    sums, mixed = np.zeros(size, np.int32), np.empty(size, np.float32)
    for t in range(count):
        for head in range(heads):
            weight = np.int32(seen_codes[head * count + t])
            for j in range(head * width, (head + 1) * width):
                sums[j] += weight * np.int32(codes[t * size + j])
    for j in range(size):
        mixed[j] = np.float32(sums[j]) * unit
    affine(part[OUTPUT], mixed.ctypes.data, y.ctypes.data, 1, 0)
    for j in range(size):
        x[j] += y[j]
    if count > left:
        drop_first(keys, count)
        drop_first(values, count)


@compiled(uses=USES)
def softmax(x):
    """x (N,) becomes its softmax."""
    largest = x[0]
    for j in range(1, x.size):
        largest = max(largest, x[j])
    total = np.float32(0)
    for j in range(x.size):
        x[j] = math.exp(x[j] - largest)
        total += x[j]
    for j in range(x.size):
        x[j] = x[j] / total


@compiled(uses=USES)
def convolve(part, kernel, x, window, y):
    """x (D,) becomes x + the convolution module; window (kernel, D): the inputs before, pushed to."""
    size = x.size
    qparams = floats(part[QPARAMS], 13)
    gated = np.empty(2 * size, np.float32)
    normalize(part[GATE_NORM], x, y)
    affine(part[GATE], y.ctypes.data, gated.ctypes.data, 1, 0)
    now = window[kernel - 1]
    for j in range(size):
        now[j] = gated[j] * sigmoid(gated[size + j])
    codes, sums = np.empty(kernel * size, np.int8), np.zeros(size, np.int32)
    quantize(window.reshape(-1), qparams[10], qparams[11], codes)
    weights = codes_at(part[DEPTHWISE], kernel * size)  # (kernel, D)
    for t in range(kernel):
        for j in range(size):
            sums[j] += np.int32(codes[t * size + j]) * np.int32(weights[t * size + j])
    scale, bias = floats(part[DEPTHWISE_SCALE], size), floats(part[DEPTHWISE_BIAS], size)
    for j in range(size):
        gated[j] = np.float32(sums[j]) * scale[j] + bias[j]
    inner = gated[:size]
    normalize(part[INNER_NORM], inner, y)
    silu(y)
    affine(part[CONTRACT], y.ctypes.data, inner.ctypes.data, 1, 0)
    for j in range(size):
        x[j] += inner[j]
    drop_first(window, kernel)


@compiled(uses=USES)
def conformer_blocks(plan, x, state, seen, frames):
    """Causal Conformer blocks over frames of one stream.

    Args:
        plan: the header, then the parts of each block.
        x: address of the frames (frames, D) float32; overwritten by the results.
        state: of the blocks' states, moved on in place: keys and values (left + 1, D) each, with room for the frame
            that comes, inputs of the convolution (kernel, D); float32.
        seen: frames in keys and values before the first.
        frames: how many.
    """
    header = numbers(plan, HEADER)
    blocks, size, inner_size, heads, left = header[0], header[1], header[2], header[3], header[4]
    kernel, own = header[5], header[6]
    inner, y = np.empty(inner_size, np.float32), np.empty(size, np.float32)
    for block in range(blocks):
        part = numbers(plan + 8 * (HEADER + block * PARTS), PARTS)
        memory = floats(state + 4 * own * block, own)
        room = (left + 1) * size
        keys, values = memory[:room].reshape(-1, size), memory[room : 2 * room].reshape(-1, size)
        window = memory[2 * room :].reshape(-1, size)
        for t in range(frames):
            row = floats(x + 4 * size * t, size)
            feed_forward(part[FIRST_NORM], part[FIRST_EXPAND], part[FIRST_CONTRACT], row, inner, y)
            attend(part, heads, left, row, keys, values, min(seen + t, left), y)
            convolve(part, kernel, row, window, y)
            feed_forward(part[SECOND_NORM], part[SECOND_EXPAND], part[SECOND_CONTRACT], row, inner, y)
            normalize(part[FINAL_NORM], row, y)
            row[:] = y
