"""An LSTM over time, forward and backward: one numba function per direction holds the whole loop.

The batch is split over threads, so that no thread waits for another within an utterance. Per frame a thread multiplies
its rows by the hidden weights (`gemm`) and then runs the cell (`cell`), row by row. Integers are exact and each float
operation stands alone, so that the integer forward pass gives the same bits whatever the batch and the split.
Arrays are contiguous: (T, B, 4H) for gates, (T, B, H) or (T + 1, B, H) for states, weights as `gemm.pack` makes them.

What a processor must offer: what `gemm` and `cell` want, nothing. Twin: `integer_reference`, equal to the bit.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qstudy.jit import compiled
from qstudy.quant.kernels import cell, gemm, ir, tiles
from qstudy.quant.kernels.gemm import BLOCK, multiply_bf16, multiply_f32, multiply_s8

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]

ZERO_CODE = 128  # the product takes unsigned bytes: code + 128
USES = (ir, gemm, tiles, cell)


@compiled()
def share(batch: int, thread: int, threads: int) -> tuple[int, int]:
    """Which rows of the batch thread `thread` of `threads` computes."""
    return batch * thread // threads, batch * (thread + 1) // threads


@compiled(uses=USES)
def integer_forward(
    accumulators: Integers,
    weight: NDArray[Any],
    start: Integers,
    scale_inputs: Floats,
    scale_hidden: Floats,
    bias: Floats,
    scale: np.float32,
    high: np.float32,
    gates: Floats,
    cells: Floats,
    codes: NDArray[np.int8],
    outputs: Floats,
    record: Integers,
    thread: int,
    threads: int,
) -> None:
    """Forward with integer products.

    Args:
        accumulators: of the inputs (T, B, 4H); `gates` may lie in the same memory.
        weight: packed int8.
        start: what the hidden sums start from: -128 times the sum of each weight row, zero-padded (blocks * BLOCK,).
        scale_inputs: (4H,).
        scale_hidden: (4H,).
        bias: (4H,).
        scale: of the hidden state's quantizer.
        high: its greatest code.
        gates: written (T, B, 4H).
        cells: (T + 1, B, H), the first given.
        codes: of the hidden states (T + 1, B, H), the first given.
        outputs: written (T, B, H).
        record: hidden accumulators, written (T, B, 4H), or of size 0 if nobody wants them.
        thread: number of this thread.
        threads: their number.
    """
    frames, batch, hidden = outputs.shape
    begin, end = share(batch, thread, threads)
    blocks, depth = weight.shape[0], weight.shape[1]
    bytes_ = np.zeros((end - begin, 4 * depth), np.uint8)  # weights beyond H are zero
    products = np.empty((end - begin, blocks * BLOCK), np.int32)
    sums, whole = np.empty(4 * hidden, np.float32), np.empty(hidden, np.float32)
    for row in range(begin, end):
        for j in range(hidden):
            bytes_[row - begin, j] = np.uint8(np.int32(codes[0, row, j]) + ZERO_CODE)
    for t in range(frames):
        multiply_s8(
            bytes_.ctypes.data,
            4 * depth,
            weight.ctypes.data,
            depth,
            start.ctypes.data,
            0,
            products.ctypes.data,
            4 * blocks * BLOCK,
            blocks,
            end - begin,
        )
        for row in range(begin, end):
            product = products[row - begin, : 4 * hidden]
            cell.add_rescaled(accumulators[t, row], product, scale_inputs, scale_hidden, bias, sums)
            cell.activate(sums, gates[t, row])
            cell.advance(gates[t, row], cells[t, row], cells[t + 1, row], outputs[t, row])
            cell.quantize(outputs[t, row], scale, high, whole)
            code, byte = codes[t + 1, row], bytes_[row - begin]
            for j in range(hidden):
                code[j] = np.int8(np.int32(whole[j]))
            for j in range(hidden):
                byte[j] = np.uint8(np.int32(whole[j]) + np.int32(ZERO_CODE))
            if record.size:
                for j in range(4 * hidden):
                    record[t, row, j] = product[j]


@compiled(uses=USES)
def float_forward(
    inputs: Floats,
    weight: Floats,
    scale: np.float32,
    high: np.float32,
    gates: Floats,
    cells: Floats,
    quantized: Floats,
    outputs: Floats,
    thread: int,
    threads: int,
) -> None:
    """Forward with float products of a fake-quantized hidden state.

    Args:
        inputs: pre-activations from the inputs (T, B, 4H).
        weight: packed float32.
        scale: of the hidden state's quantizer.
        high: its greatest code.
        gates: written (T, B, 4H).
        cells: (T + 1, B, H), the first given.
        quantized: hidden states, fake-quantized (T + 1, B, H), the first given.
        outputs: written (T, B, H).
        thread: number of this thread.
        threads: their number.
    """
    frames, batch, hidden = outputs.shape
    begin, end = share(batch, thread, threads)
    blocks, depth = weight.shape[0], weight.shape[1]
    products, zeros = np.empty((end - begin, blocks * BLOCK), np.float32), np.zeros(blocks * BLOCK, np.float32)
    whole = np.empty(hidden, np.float32)
    for t in range(frames):
        multiply_f32(
            quantized.ctypes.data + 4 * (t * batch + begin) * hidden,
            4 * hidden,
            weight.ctypes.data,
            depth,
            zeros.ctypes.data,
            0,
            products.ctypes.data,
            4 * blocks * BLOCK,
            blocks,
            end - begin,
        )
        for row in range(begin, end):
            product, given = products[row - begin, : 4 * hidden], inputs[t, row]
            for j in range(product.size):
                product[j] += given[j]
            cell.activate(product, gates[t, row])
            cell.advance(gates[t, row], cells[t, row], cells[t + 1, row], outputs[t, row])
            cell.quantize(outputs[t, row], scale, high, whole)
            value = quantized[t + 1, row]
            for j in range(hidden):
                value[j] = whole[j] * scale


@compiled(uses=USES)
def backward(
    gates: Floats,
    cells: Floats,
    weight: Integers,
    grad_outputs: Floats,
    grad_h: Floats,
    grad_c: Floats,
    grad_gates: NDArray[Any],
    thread: int,
    threads: int,
) -> None:
    """Backward in float.

    Args:
        gates: (T, B, 4H).
        cells: (T + 1, B, H).
        weight: hidden weights transposed (H, 4H), packed words of the dtype of `grad_gates`.
        grad_outputs: (T, B, H).
        grad_h: of the last hidden state, then of the initial one (B, H).
        grad_c: of the last cell state, then of the initial one (B, H).
        grad_gates: of the pre-activations, written (T, B, 4H): bits of float32 (int32) or of bfloat16 (int16).
        thread: number of this thread.
        threads: their number.
    """
    frames, batch, hidden = grad_outputs.shape
    begin, end = share(batch, thread, threads)
    blocks, depth = weight.shape[0], weight.shape[1]
    products, zeros = np.empty((end - begin, blocks * BLOCK), np.float32), np.zeros(blocks * BLOCK, np.float32)
    scratch, exact = np.empty((2, hidden), np.float32), np.empty(4 * hidden, np.float32)
    narrow = grad_gates.itemsize == 2
    halves = np.zeros((end - begin, 2 * depth if narrow else 0), np.int16)  # weights beyond 4H are zero
    for row in range(begin, end):
        for j in range(hidden):
            products[row - begin, j] = grad_h[row, j]
    for t in range(frames - 1, -1, -1):
        for row in range(begin, end):
            cell.retreat(
                gates[t, row],
                cells[t, row],
                cells[t + 1, row],
                grad_outputs[t, row],
                products[row - begin, :hidden],
                grad_c[row],
                scratch,
                exact,
            )
            cell.store_bits(exact.view(np.int32), grad_gates[t, row])
            if narrow:
                source, target = grad_gates[t, row], halves[row - begin]
                for j in range(source.size):
                    target[j] = source[j]
        if narrow:
            multiply_bf16(
                halves.ctypes.data,
                4 * depth,
                weight.ctypes.data,
                depth,
                zeros.ctypes.data,
                0,
                products.ctypes.data,
                4 * blocks * BLOCK,
                blocks,
                end - begin,
            )
        else:
            multiply_f32(
                grad_gates.ctypes.data + 4 * (t * batch + begin) * depth,
                4 * depth,
                weight.ctypes.data,
                depth,
                zeros.ctypes.data,
                0,
                products.ctypes.data,
                4 * blocks * BLOCK,
                blocks,
                end - begin,
            )
    for row in range(begin, end):
        for j in range(hidden):
            grad_h[row, j] = products[row - begin, j]


def integer_reference(
    accumulators: Integers,
    weight: NDArray[np.int8],
    scales: tuple[Floats, Floats],
    bias: Floats,
    scale: np.float32,
    high: np.float32,
    state: tuple[NDArray[np.int8], Floats],
) -> tuple[Floats, Floats, NDArray[np.int8], Floats, NDArray[np.int64]]:
    """`integer_forward` in NumPy: weight (4H, H), state the first codes and cell state (B, H).

    Returns:
        Gates, cells, codes, outputs and hidden accumulators, over time.
    """
    codes, cells, gates, outputs, record = [state[0]], [state[1]], [], [], []
    for inputs in accumulators:
        record.append(codes[-1].astype(np.int64) @ weight.T.astype(np.int64))
        sums = inputs.astype(np.float32) * scales[0] + bias + record[-1].astype(np.float32) * scales[1]
        gate, after, output = cell.frame_reference(sums, cells[-1])
        gates.append(gate)
        cells.append(after)
        outputs.append(output)
        codes.append(np.clip(np.rint(output / scale), -high, high).astype(np.int8))
    return np.array(gates), np.array(cells), np.array(codes), np.array(outputs), np.array(record)
