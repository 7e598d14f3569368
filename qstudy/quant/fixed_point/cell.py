"""One frame of an LSTM cell in fixed point: compiled loops for the CPU, torch's int64 for everything else.

Both compute, for every hidden unit, in the integers of `operators.py`:

    gate = sat16(requantize(input accumulator) + requantize(hidden accumulator) + bias)
    c    = sat16(round(sigmoid(f) * c) + round(sigmoid(i) * tanh(g))), or sat8
    h    = round(sigmoid(o) * tanh(c)), and its 8-bit code for the next frame's product

Integers have one sum, so the two are equal to the bit, whatever the batch, the chunks and the threads.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qstudy.jit import compiled
from qstudy.quant.fixed_point.lookup import OFFSET, responses
from qstudy.quant.fixed_point.operators import SIXTEEN, UNIT, FixedPoint, requantize, saturate, shift_right


class CellConstants(NamedTuple):
    """What the frames of one layer share."""

    input_requantization: Tensor
    """(4H,) int32, requantization of the inputs' accumulators (`operators.requantization`)."""
    hidden_requantization: Tensor
    """(4H,) int32, of the hidden states'."""
    bias: Tensor
    """(4H,) int16 in the gates' format."""
    spec: FixedPoint
    bits: int
    """Width of the hidden state's codes."""


class CellTrace(NamedTuple):
    """All frames of one run; frame t reads row t of cells and codes and writes row t + 1."""

    gates: Tensor
    """(T, B, 4H) int16, after sigmoid and tanh, Q0.15."""
    cells: Tensor
    """(T + 1, B, H) int16."""
    outputs: Tensor
    """(T, B, H) int16, Q0.15."""
    codes: Tensor
    """(T + 1, B, H) int8: the hidden states that the products see, Q0.7 at 8 bits."""


def hidden_codes(outputs: Tensor, bits: int, rounding: str) -> Tensor:
    """Hidden states in Q0.15 (...) to codes of `bits` bits on a symmetric quantizer, int8."""
    high = 2 ** (bits - 1) - 1
    return saturate(shift_right(outputs.long(), UNIT + 1 - bits, rounding), -high, high).to(torch.int8)


def run_frame(t: int, inputs: Tensor, hidden: Tensor, constants: CellConstants, trace: CellTrace) -> None:
    """Run frame t: from the accumulators of inputs and hidden state, each (B, 4H) int32, into the rows of `trace`."""
    if inputs.device.type == "cpu":
        _compiled(t, inputs, hidden, constants, trace)
    else:
        run_frame_in_torch(t, inputs, hidden, constants, trace)


def run_frame_in_torch(t: int, inputs: Tensor, hidden: Tensor, constants: CellConstants, trace: CellTrace) -> None:
    """`run_frame` in torch, on any device."""
    spec, rounding = constants.spec, constants.spec.rounding
    sigmoid, tanh, _ = responses(spec, inputs.device)
    products = (
        requantize(inputs, constants.input_requantization, rounding),
        requantize(hidden, constants.hidden_requantization, rounding),
    )
    i, f, g, o = saturate(products[0] + products[1] + constants.bias).add(OFFSET).chunk(4, -1)
    i, f, g, o = sigmoid[i].long(), sigmoid[f].long(), tanh[g].long(), sigmoid[o].long()
    kept = shift_right(f * trace.cells[t], UNIT, rounding)
    cell = saturate(kept + shift_right(i * g, 2 * UNIT - spec.cell_fraction, rounding), *spec.cell_bounds)
    wide = spec.gate_fraction - spec.cell_fraction
    argument = saturate(cell << wide) if wide >= 0 else shift_right(cell, -wide, rounding)
    output = shift_right(o * tanh[argument + OFFSET].long(), UNIT, rounding)
    trace.gates[t] = torch.cat([i, f, g, o], -1)
    trace.cells[t + 1], trace.outputs[t] = cell, output
    trace.codes[t + 1] = hidden_codes(output, constants.bits, rounding)


def _compiled(t: int, inputs: Tensor, hidden: Tensor, constants: CellConstants, trace: CellTrace) -> None:
    spec = constants.spec
    requantization = (
        constants.input_requantization.numpy(),
        constants.hidden_requantization.numpy(),
        constants.bias.numpy(),
    )
    tables = (table.numpy() for table in responses(spec)[:2])
    formats = (2 * UNIT - spec.cell_fraction, spec.gate_fraction - spec.cell_fraction, *spec.cell_bounds)
    rows = (part.numpy() for part in (trace.gates, trace.cells, trace.outputs, trace.codes))
    _cell(
        t,
        inputs.numpy(),
        hidden.numpy(),
        *requantization,
        *tables,
        *formats,
        constants.bits,
        spec.rounding == "half_away",
        *rows,
    )


LOW, HIGH = SIXTEEN


@compiled()
def _shift(x: int, shift: int, half_away: bool) -> int:
    """`operators.shift_right` of one number."""
    if half_away:
        return (x + ((1 << shift) >> 1) + (x >> 63) * min(shift, 1)) >> shift
    return x >> shift


@compiled()
def _gates(
    inputs: Any,
    hidden: Any,
    input_requantization: Any,
    hidden_requantization: Any,
    bias: Any,
    half_away: bool,
    out: Any,
) -> None:
    """Gates (4H,) int16 before their non-linearity."""
    for j in range(len(out)):
        first, other = input_requantization[j], hidden_requantization[j]
        x = _shift(inputs[j] * ((first >> 8) & 0xFFFFFF), first & 0xFF, half_away)
        h = _shift(hidden[j] * ((other >> 8) & 0xFFFFFF), other & 0xFF, half_away)
        out[j] = min(max(min(max(x, LOW), HIGH) + min(max(h, LOW), HIGH) + bias[j], LOW), HIGH)


@compiled()
def _lookup(table: Any, x: Any) -> None:
    """x (N,) int16 becomes the table's results for it."""
    for j in range(len(x)):
        x[j] = table[x[j] + OFFSET]


@compiled()
def _next_cell(
    gate: Any, before: Any, shift: int, wide: int, low: int, high: int, half_away: bool, after: Any, argument: Any
) -> None:
    """Cell state (H,) from gates (4H,) and the cell state before; and the argument of its tanh in the gates' format."""
    size = len(before)
    i, f, g = gate[:size], gate[size : 2 * size], gate[2 * size : 3 * size]
    for j in range(size):
        cell = _shift(f[j] * before[j], 15, half_away) + _shift(i[j] * g[j], shift, half_away)
        cell = min(max(cell, low), high)
        after[j] = cell
        argument[j] = min(max(cell << wide, LOW), HIGH) if wide >= 0 else _shift(cell, -wide, half_away)


@compiled()
def _output(o: Any, tanh: Any, bits: int, half_away: bool, output: Any, code: Any) -> None:
    """Hidden state (H,) from output gate and tanh of the cell; and its code."""
    high = (1 << (bits - 1)) - 1
    for j in range(len(output)):
        y = _shift(o[j] * tanh[j], 15, half_away)
        output[j] = y
        code[j] = min(max(_shift(y, 16 - bits, half_away), -high), high)


@compiled()
def _cell(
    t: int,
    inputs: Any,
    hidden: Any,
    input_requantization: Any,
    hidden_requantization: Any,
    bias: Any,
    sigmoid: Any,
    tanh: Any,
    shift: int,
    wide: int,
    low: int,
    high: int,
    bits: int,
    half_away: bool,
    gates: Any,
    cells: Any,
    outputs: Any,
    codes: Any,
) -> None:
    """Frame t for all utterances; arrays as in `CellConstants` and `CellTrace`, accumulators (B, 4H) int32.

    One row at a time, in short loops: those without a look-up become vector instructions.
    """
    size = cells.shape[2]
    bent = np.empty(size, np.int16)  # the cell state's tanh, and before that its argument
    for b in range(cells.shape[1]):
        gate = gates[t, b]
        _gates(inputs[b], hidden[b], input_requantization, hidden_requantization, bias, half_away, gate)
        _lookup(sigmoid, gate[: 2 * size])
        _lookup(tanh, gate[2 * size : 3 * size])
        _lookup(sigmoid, gate[3 * size :])
        _next_cell(gate, cells[t, b], shift, wide, low, high, half_away, cells[t + 1, b], bent)
        _lookup(tanh, bent)
        _output(gate[3 * size :], bent, bits, half_away, outputs[t, b], codes[t + 1, b])
