"""Layers in integers with a backward pass that ignores the rounding: what native training and the packed model run.

Source: Ding et al. 2022, arXiv 2203.15952: operands really cast to integers, real integer products, straight-through
gradients.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qstudy.quant.arithmetic import LSTMState
from qstudy.quant.bfloat16 import gradient_dtype
from qstudy.quant.integer.accumulator import (
    QParams,
    accumulate,
    record,
    rescale,
)
from qstudy.quant.products import bias_gradient, input_gradient, weight_gradient
from qstudy.quant.recurrence.frames import Trace, integer_trace, last_state, trace_gradients


class WeightOperand(NamedTuple):
    """A weight as an operand of products: in integers forward, in float backward."""

    values: Tensor | None
    """(H, D) float32, codes * scale, with the history of its straight-through gradient; None: no gradient is wanted."""
    codes: Tensor
    """(H, D) int8 (int16 above 8 bits)."""
    scale: Tensor
    """(H,) or (1,) float32."""


def integer_linear(
    x: Tensor, weight: WeightOperand, bias: Tensor | None, qparams: QParams, gradient: torch.dtype = torch.float32
) -> Tensor:
    """Affine map with an integer product: codes of x, exact accumulators, rescaled to float32, bias added.

    Backward, straight through: dx = g @ values, zero where x was clipped; dW = g^T @ ((codes - zero) * scale).

    Args:
        x: (..., D) float.
        weight: (H, D).
        bias: (H,) float32 or None.
        qparams: of x.
        gradient: in which the backward pass multiplies: float32, or bfloat16 where the device does so itself.

    Returns:
        (..., H) float32.
    """
    operands = (x.float(), weight.values, bias)
    if not wants_gradient(operands):
        return _linear_forward(qparams.quantize(operands[0]), weight, bias, qparams)
    return _IntegerLinear.apply(*operands, weight, qparams, gradient_dtype(gradient, x.device))


def integer_lstm(
    x: Tensor,
    state: LSTMState,
    w_input: WeightOperand,
    w_hidden: WeightOperand,
    bias: Tensor,
    input_qparams: QParams,
    hidden_qparams: QParams,
    gradient: torch.dtype = torch.float32,
) -> tuple[Tensor, LSTMState]:
    """One LSTM layer over a whole utterance, inputs and hidden state multiplied in integers at every frame.

    gate = (float(acc_x) * (scale_x * scale_wx) + bias) + float(acc_h) * (scale_h * scale_wh); c = f * c + i * g;
    h = o * tanh(c), each operation rounded once to float32.

    Args:
        x: (B, T, D) float.
        state: initial h and c, (1, B, H) float32 each.
        w_input: (4H, D), gates in torch's order.
        w_hidden: (4H, H).
        bias: sum of both biases (4H,) float32.
        input_qparams: of x.
        hidden_qparams: of h; symmetric.
        gradient: in which the backward pass multiplies: float32, or bfloat16 where the device does so itself.

    Returns:
        Outputs (B, T, H) float32, not fake-quantized, and the state after the last frame.
    """
    operands = (x.float(), state[0][0], state[1][0], w_input.values, w_hidden.values, bias)
    qparams = (input_qparams, hidden_qparams)
    if wants_gradient(operands):
        dtype = gradient_dtype(gradient, x.device)
        y, h, c = _IntegerLSTM.apply(*operands, w_input, w_hidden, qparams, dtype)
    else:
        codes = input_qparams.quantize(operands[0].transpose(0, 1))
        trace = _lstm_forward(codes, *operands[1:3], w_input, w_hidden, bias, qparams)
        y, h, c = last_state(trace, operands[1])
    return y, (h.unsqueeze(0), c.unsqueeze(0))


def wants_gradient(operands: Sequence[Tensor | None]) -> bool:
    """Whether autograd will ask for the gradient of any of them."""
    return torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in operands)


def _linear_forward(codes: Tensor, weight: WeightOperand, bias: Tensor | None, qparams: QParams) -> Tensor:
    accumulator = accumulate(codes, qparams.zero_point, weight.codes)
    record(accumulator)
    return rescale(accumulator, qparams.scale, weight.scale, bias)


class _IntegerLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        values: Tensor,
        bias: Tensor | None,
        weight: WeightOperand,
        qparams: QParams,
        gradient: torch.dtype,
    ) -> Tensor:
        codes, inside = qparams.quantize_and_inside(x)
        ctx.save_for_backward(values, codes, inside, qparams.scale, qparams.zero_point)
        ctx.gradient = gradient
        return _linear_forward(codes, weight, bias, qparams)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        values, codes, inside, scale, zero_point = ctx.saved_tensors
        with torch.autocast(upstream.device.type, enabled=False):
            exact = upstream.float().reshape(-1, len(values))
            rows, wanted = exact.to(ctx.gradient), ctx.needs_input_grad
            dx = input_gradient(rows, values, flat(inside)).view(inside.shape) if wanted[0] else None
            dw = weight_gradient(rows, codes, scale, zero_point) if wanted[1] else None
        return dx, dw, bias_gradient(exact) if wanted[2] else None, None, None, None


def flat(x: Tensor) -> Tensor:
    """(..., D) as (N, D)."""
    return x.reshape(-1, x.shape[-1])


def _lstm_forward(
    codes: Tensor,
    h: Tensor,
    c: Tensor,
    w_input: WeightOperand,
    w_hidden: WeightOperand,
    bias: Tensor,
    qparams: tuple[QParams, QParams],
) -> Trace:
    """codes (T, B, D)."""
    accumulator = accumulate(codes, qparams[0].zero_point, w_input.codes)
    record(accumulator)
    scales = (qparams[0].scale * w_input.scale, qparams[1].scale * w_hidden.scale)
    return integer_trace(accumulator, h.float(), c.float(), w_hidden.codes, scales, bias, qparams[1])


class _IntegerLSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h: Tensor,
        c: Tensor,
        v_input: Tensor,
        v_hidden: Tensor,
        bias: Tensor,
        w_input: WeightOperand,
        w_hidden: WeightOperand,
        qparams: tuple[QParams, QParams],
        gradient: torch.dtype,
    ) -> Any:
        codes, inside = qparams[0].quantize_and_inside(x.transpose(0, 1))
        trace = _lstm_forward(codes, h, c, w_input, w_hidden, bias, qparams)
        saved = (trace.gates, trace.cells, trace.hidden, v_input, v_hidden, codes, inside)
        ctx.save_for_backward(*saved, qparams[0].scale, qparams[0].zero_point, qparams[1].scale)
        ctx.gradient = gradient
        return last_state(trace, h)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor | None, ...]:
        gates, cells, hidden, v_input, v_hidden, codes, inside, scale_x, zero_x, scale_h = ctx.saved_tensors
        wanted, dtype = ctx.needs_input_grad, ctx.gradient
        with torch.autocast(gates.device.type, enabled=False):
            d_gates, dh, dc = trace_gradients(gates, cells, v_hidden, (y.transpose(0, 1), h, c), dtype)
            rows = d_gates.view(-1, d_gates.shape[-1]).to(dtype)
            dx = input_gradient(rows, v_input, flat(inside)).view(inside.shape).transpose(0, 1) if wanted[0] else None
            d_weights = weight_gradient(rows, codes, scale_x, zero_x), weight_gradient(rows, hidden[:-1], scale_h)
        return dx, dh, dc, *d_weights, bias_gradient(rows), None, None, None, None
