"""The arithmetic of one frame of an LSTM, one row of a batch: float32, each operation rounded once, in a fixed order.

The loops are so plain that LLVM turns them into vectors and every result stays what the scalar expression gives: no
fused multiply-add, no reordering. So training, the packed model, and the NumPy twins below agree to the bit. Each
loop writes one array: LLVM gives up when it has too many pairs of arrays to compare for overlap.

What a processor must offer: float32 that rounds as IEEE 754 says; vectors of any width make it fast. Twins:
`frame_reference`, `gradient_reference`, `tanh_reference`, `sigmoid_reference`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qstudy.jit import compiled

Row = NDArray[np.float32]

ONE, HALF = np.float32(1.0), np.float32(0.5)
LIMIT = np.float32(8.4)
"""From here on tanh is 1 in float32, and so is the fraction below."""
A1, A2, A3, A4 = (np.float32(a) for a in (1.34195730e-01, 3.54160811e-03, 2.13795900e-05, 1.44575375e-08))
B1, B2, B3, B4 = (np.float32(b) for b in (4.67528969e-01, 2.60514058e-02, 3.36141064e-04, 8.21984543e-07))
"""tanh(x) = x A(x^2) / B(x^2): least relative error up to LIMIT; A and B start with 1."""
BFLOAT_NAN, INFINITY, MAGNITUDE = np.int32(0x7FC0), np.int32(0x7F800000), np.int32(0x7FFFFFFF)
BELOW_HALF, HALF_WORD, BIT = np.int32(0x7FFF), np.int32(16), np.int32(1)


@compiled()
def tanh(x: np.float32) -> np.float32:
    """To 3.2e-7, never beyond 1; NaN stays."""
    x = LIMIT if x > LIMIT else (-LIMIT if x < -LIMIT else x)
    u = x * x
    above = (((A4 * u + A3) * u + A2) * u + A1) * u + ONE
    below = (((B4 * u + B3) * u + B2) * u + B1) * u + ONE
    y = x * above / below
    return ONE if y > ONE else (-ONE if y < -ONE else y)


@compiled()
def sigmoid(x: np.float32) -> np.float32:
    """By tanh, to 2e-7."""
    return HALF * tanh(HALF * x) + HALF


@compiled()
def activate(sums: Row, gates: Row) -> None:
    """Pre-activations (4H,) to gates (4H,) in torch's order: input, forget, cell, output."""
    half, part = sums.size // 2, sums.size // 4
    for first, last in ((0, half), (half + part, 4 * part)):
        source, target = sums[first:last], gates[first:last]
        for j in range(source.size):
            target[j] = sigmoid(source[j])
    source, target = sums[half : half + part], gates[half : half + part]
    for j in range(part):
        target[j] = tanh(source[j])


@compiled()
def advance(gates: Row, before: Row, after: Row, output: Row) -> None:
    """Gates (4H,) and the cell state (H,) before, to the cell state after and the hidden state, (H,) each."""
    n = before.size
    i, f, g, o = gates[:n], gates[n : 2 * n], gates[2 * n : 3 * n], gates[3 * n :]
    for j in range(n):
        after[j] = f[j] * before[j] + i[j] * g[j]
    for j in range(n):
        output[j] = o[j] * tanh(after[j])


@compiled()
def add_rescaled(
    inputs: NDArray[np.int32],
    hidden: NDArray[np.int32],
    scale_inputs: Row,
    scale_hidden: Row,
    bias: Row,
    sums: Row,
) -> None:
    """Accumulators of the inputs and of the hidden state to pre-activations, (4H,) each.

    Args:
        inputs: int32.
        hidden: int32.
        scale_inputs: what one unit of `inputs` stands for.
        scale_hidden: of `hidden`.
        bias: float32.
        sums: written.
    """
    for j in range(sums.size):
        x = np.float32(inputs[j]) * scale_inputs[j] + bias[j]
        sums[j] = x + np.float32(hidden[j]) * scale_hidden[j]


@compiled()
def quantize(x: Row, scale: np.float32, high: np.float32, codes: Row) -> None:
    """Values (n,) to the whole numbers (n,) float32 of a symmetric quantizer."""
    for j in range(x.size):
        code = np.rint(x[j] / scale)
        codes[j] = (code if code < high else high) if code >= -high else -high  # NaN becomes the least


@compiled()
def retreat(
    gates: Row,
    before: Row,
    after: Row,
    grad_output: Row,
    grad_h: Row,
    grad_c: Row,
    scratch: NDArray[np.float32],
    grad_gates: Row,
) -> None:
    """Backward through `advance` and `activate`.

    Args:
        gates: (4H,).
        before: cell state before the frame (H,).
        after: cell state after the frame (H,).
        grad_output: gradient of the output from above (H,).
        grad_h: gradient of the hidden state from the next frame (H,).
        grad_c: gradient of the cell state, after, then before the frame (H,).
        scratch: (2, H).
        grad_gates: of the pre-activations (4H,), written.
    """
    n = before.size
    i, f, g, o = gates[:n], gates[n : 2 * n], gates[2 * n : 3 * n], gates[3 * n :]
    di, df, dg, do = grad_gates[:n], grad_gates[n : 2 * n], grad_gates[2 * n : 3 * n], grad_gates[3 * n :]
    bent, dh = scratch[0], scratch[1]
    for j in range(n):
        bent[j] = tanh(after[j])
    for j in range(n):
        dh[j] = grad_output[j] + grad_h[j]
    for j in range(n):
        do[j] = dh[j] * bent[j] * (o[j] * (ONE - o[j]))
    for j in range(n):
        grad_c[j] = grad_c[j] + dh[j] * o[j] * (ONE - bent[j] * bent[j])
    for j in range(n):
        di[j] = grad_c[j] * g[j] * (i[j] * (ONE - i[j]))
    for j in range(n):
        df[j] = grad_c[j] * before[j] * (f[j] * (ONE - f[j]))
    for j in range(n):
        dg[j] = grad_c[j] * i[j] * (ONE - g[j] * g[j])
    for j in range(n):
        grad_c[j] = grad_c[j] * f[j]


@compiled()
def store_bits(bits: NDArray[np.int32], out: NDArray[Any]) -> None:
    """The bits of float32 (n,) to out (n,): int32 takes them as they are, int16 those of bfloat16.

    To the nearest bfloat16, ties to even; NaN stays NaN.
    """
    if out.itemsize == 4:
        for j in range(bits.size):
            out[j] = bits[j]
    else:
        for j in range(bits.size):
            x = bits[j]
            near = (x + BELOW_HALF + ((x >> HALF_WORD) & BIT)) >> HALF_WORD
            out[j] = BFLOAT_NAN if (x & MAGNITUDE) > INFINITY else near


def tanh_reference(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """`tanh` in NumPy, any shape."""
    x = np.clip(x, -LIMIT, LIMIT)
    u = x * x
    above = (((A4 * u + A3) * u + A2) * u + A1) * u + ONE
    below = (((B4 * u + B3) * u + B2) * u + B1) * u + ONE
    return np.clip(x * above / below, -ONE, ONE)


def sigmoid_reference(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """`sigmoid` in NumPy, any shape."""
    return HALF * tanh_reference(HALF * x) + HALF


def frame_reference(sums: Row, before: Row) -> tuple[Row, Row, Row]:
    """`activate` and `advance` in NumPy: pre-activations (..., 4H) and cell state (..., H) to gates, cell, output."""
    i, f, g, o = np.split(sums, 4, -1)
    i, f, g, o = sigmoid_reference(i), sigmoid_reference(f), tanh_reference(g), sigmoid_reference(o)
    after = f * before + i * g
    return np.concatenate([i, f, g, o], -1), after, o * tanh_reference(after)


def gradient_reference(
    gates: Row, before: Row, after: Row, grad_output: Row, grad_h: Row, grad_c: Row
) -> tuple[Row, Row]:
    """`retreat` in NumPy: gradients of the pre-activations (..., 4H) and of the cell state before it (..., H)."""
    i, f, g, o = np.split(gates, 4, -1)
    bent, dh = tanh_reference(after), grad_output + grad_h
    do = dh * bent * (o * (ONE - o))
    dc = grad_c + dh * o * (ONE - bent * bent)
    di = dc * g * (i * (ONE - i))
    df = dc * before * (f * (ONE - f))
    dg = dc * i * (ONE - g * g)
    return np.concatenate([di, df, dg, do], -1), dc * f
