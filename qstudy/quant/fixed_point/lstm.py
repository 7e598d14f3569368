"""An LSTM layer in an accelerator's fixed point: the time loop that training and the packed model share."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qstudy.quant.fixed_point.cell import CellConstants, CellTrace, hidden_codes, run_frame
from qstudy.quant.fixed_point.operators import UNIT, FixedPoint, factors, requantization, to_fixed, to_float
from qstudy.quant.integer.accumulator import record, recording
from qstudy.quant.integer.matmul import integer_matmul
from qstudy.quant.recurrence.frames import recurrence_gradients


class LSTMOperands(NamedTuple):
    """The integers of one layer."""

    w_input: Tensor
    """(4H, D) int8."""
    w_hidden: Tensor
    """(4H, H) int8."""
    constants: CellConstants


def gate_requantization(scale: Tensor, input_scale: Tensor | float, spec: FixedPoint) -> Tensor:
    """Requantization of accumulators to gates, int32, one word per scale.

    Args:
        scale: of the weights, float32, any shape.
        input_scale: of the codes that the weights are multiplied with.
        spec: the gates' format.
    """
    factor = scale.double() * torch.as_tensor(input_scale, device=scale.device).double() * 2.0**spec.gate_fraction
    return requantization(factor)


def weight_scale(requantization: Tensor, input_scale: Tensor | float, spec: FixedPoint) -> Tensor:
    """The weights' scale, float32, that `gate_requantization` made multipliers and shifts of, to 24 bits."""
    return (factors(requantization) / (torch.as_tensor(input_scale).double() * 2.0**spec.gate_fraction)).float()


def lstm_operands(
    matrices: Sequence[Tensor], requantization: Sequence[Tensor], bias: Tensor, bits: int, spec: FixedPoint
) -> LSTMOperands:
    """The integers of an LSTM layer.

    Args:
        matrices: input and hidden weights, (4H, D) and (4H, H) int8.
        requantization: 4H multipliers with shifts, or one, int32.
        bias: (4H,) float32, the sum of both; rounded to the gates' format.
        bits: width of inputs and hidden state.
        spec: the accelerator's formats.
    """
    rows = [each.flatten().expand(len(bias)).contiguous() for each in requantization]
    constants = CellConstants(rows[0], rows[1], to_fixed(bias.detach(), spec.gate_fraction), spec, bits)
    return LSTMOperands(matrices[0], matrices[1], constants)


def hidden_scale(bits: int) -> float:
    """The scale of a hidden state's codes: Q0.7 at 8 bits."""
    return 2.0 ** (1 - bits)


def run_lstm(codes: Tensor, h: Tensor, c: Tensor, operands: LSTMOperands) -> CellTrace:
    """All frames of a layer.

    Args:
        codes: inputs (T, B, D) int8.
        h: hidden state (B, H) int16, Q0.15.
        c: cell state (B, H) int16 in the cell's format.
        operands: the layer.
    """
    frames = len(codes)
    constants = operands.constants
    inputs = integer_matmul(codes, operands.w_input).int()
    trace = CellTrace(
        torch.empty(inputs.shape, dtype=torch.int16, device=codes.device),
        c.new_empty(frames + 1, *c.shape),
        h.new_empty(frames, *h.shape),
        torch.empty(frames + 1, *h.shape, dtype=torch.int8, device=h.device),
    )
    trace.cells[0] = c
    trace.codes[0] = hidden_codes(h, constants.bits, constants.spec.rounding)
    kept = torch.empty_like(inputs) if recording() else None
    for t in range(frames):
        hidden = integer_matmul(trace.codes[t], operands.w_hidden).int()
        run_frame(t, inputs[t], hidden, constants, trace)
        if kept is not None:
            kept[t] = hidden
    if kept is not None:
        record(inputs)
        record(kept)
    return trace


def final_state(h: Tensor, trace: CellTrace, spec: FixedPoint) -> tuple[Tensor, Tensor]:
    """Hidden and cell state after the last frame, (B, H) float32 each, exactly the device's integers; h if no frame."""
    last = trace.outputs[-1] if len(trace.outputs) else h
    return to_float(last, UNIT), to_float(trace.cells[-1], spec.cell_fraction)


class _FixedPointLSTM(torch.autograd.Function):
    """Integers forward; backward the gradients of the float operators, at the quantized values."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h: Tensor,
        c: Tensor,
        w_input: Tensor,
        w_hidden: Tensor,
        bias: Tensor,
        codes: Tensor,
        operands: LSTMOperands,
    ) -> Any:
        spec, bits = operands.constants.spec, operands.constants.bits
        first = to_fixed(h, UNIT)
        trace = run_lstm(codes, first, to_fixed(c, spec.cell_fraction, spec.cell_bounds), operands)
        ctx.save_for_backward(x, w_input, w_hidden, trace.gates, trace.cells, trace.codes)
        ctx.scales = (spec.cell_fraction, hidden_scale(bits))
        return to_float(trace.outputs, UNIT), *final_state(first, trace, spec)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, w_input, w_hidden, gates, cells, codes = ctx.saved_tensors
        cell_fraction, unit = ctx.scales
        seen = (to_float(gates, UNIT), to_float(cells, cell_fraction), codes.float() * unit)
        gate, grad_h, grad_c, grad_hidden = recurrence_gradients(*seen, w_hidden, grads[0], grads[1], grads[2])
        flat = gate.flatten(0, 1)
        grad_x = gate @ w_input if ctx.needs_input_grad[0] else None
        return grad_x, grad_h, grad_c, flat.t() @ x.flatten(0, 1), grad_hidden, flat.sum(0), None, None


def fixed_point_lstm(
    x: Tensor, h: Tensor, c: Tensor, weights: tuple[Tensor, Tensor, Tensor], codes: Tensor, operands: LSTMOperands
) -> tuple[Tensor, Tensor, Tensor]:
    """A layer in fixed point, differentiable straight through.

    Args:
        x: inputs (T, B, D) float32, as quantized as `codes`.
        h: hidden state (B, H) float32.
        c: cell state (B, H) float32.
        weights: input weights (4H, D) and hidden weights (4H, H), float32, as quantized; bias (4H,) float32.
        codes: the integers of x (T, B, D) int8.
        operands: the integers of the layer.

    Returns:
        Outputs (T, B, H), last hidden state (B, H), last cell state (B, H): float32 that are exactly integers of
        16 bits times their scales.
    """
    return _FixedPointLSTM.apply(x, h, c, *weights, codes, operands)
