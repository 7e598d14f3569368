"""Integer layers whose inputs' scale is anew each row's own: what training and the packed model share.

A row is what one output is a sum over: a frame's features, or what a convolution's window sees. It is divided by its
largest magnitude and multiplied back after the sum, so that all integers are those of a quantizer that ends at 1. A row
knows nothing of others: a batch, a stream and a single frame give the same bits.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qstudy.quant.arithmetic import LSTMState
from qstudy.quant.integer.accumulator import QParams
from qstudy.quant.integer.layers import WeightOperand, wants_gradient
from qstudy.quant.products import bias_gradient, weight_gradient
from qstudy.quant.quantizers import TINY
from qstudy.quant.recurrence.frames import Trace, integer_trace, last_state, trace_gradients


def by_row(x: Tensor, bias: Tensor | None, product: Callable[[Tensor], Tensor], rows: int = 1) -> Tensor:
    """`product` of x's rows, each in units of its largest magnitude, times that, plus a bias.

    Args:
        x: (..., D) float; or (..., G, D), if the product has outputs for each of G groups.
        bias: (H,) or None.
        product: of (..., D) to (..., H); or of (..., G, D) to (..., H), H / G outputs for each group in turn.
        rows: outputs of a group, where there are groups; the largest magnitudes are repeated as often.
    """
    x = x.float()
    largest = x.detach().abs().amax(-1, keepdim=True).clamp_min(TINY)
    sums = product(x / largest)
    if sums.dim() < x.dim():
        largest = largest.squeeze(-1).repeat_interleave(rows, -1)
    y = sums * largest
    return y if bias is None else y + bias


def integer_recurrence(
    inputs: Tensor, state: LSTMState, weight: WeightOperand, bias: Tensor, qparams: QParams, gradient: torch.dtype
) -> tuple[Tensor, LSTMState]:
    """An LSTM after its input product: hidden states are multiplied in integers at every frame.

    Args:
        inputs: the inputs' part of the gates' pre-activations (T, B, 4H) float32, without biases.
        state: initial h and c, (1, B, H) float32 each.
        weight: hidden weights (4H, H).
        bias: sum of both biases (4H,) float32.
        qparams: of the hidden state; symmetric.
        gradient: in which the backward pass multiplies: float32, or bfloat16 where the device does so itself.

    Returns:
        Outputs (B, T, H) float32, not fake-quantized, and the state after the last frame.
    """
    operands = (inputs, state[0][0], state[1][0], weight.values, bias)
    if wants_gradient(operands):
        y, h, c = _IntegerRecurrence.apply(*operands, weight, qparams, gradient)
    else:
        trace = _forward(*operands[:3], weight, bias, qparams)
        y, h, c = last_state(trace, operands[1])
    return y, (h.unsqueeze(0), c.unsqueeze(0))


def _forward(inputs: Tensor, h: Tensor, c: Tensor, weight: WeightOperand, bias: Tensor, qparams: QParams) -> Trace:
    """inputs (T, B, 4H); the time loop takes them for accumulators that are worth one each, and overwrites them."""
    scales = (torch.ones_like(bias), qparams.scale * weight.scale)
    own = inputs.detach().float().clone(memory_format=torch.contiguous_format)
    return integer_trace(own, h.float(), c.float(), weight.codes, scales, bias, qparams)


class _IntegerRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        h: Tensor,
        c: Tensor,
        values: Tensor,
        bias: Tensor,
        weight: WeightOperand,
        qparams: QParams,
        gradient: torch.dtype,
    ) -> Any:
        trace = _forward(inputs, h, c, weight, bias, qparams)
        ctx.save_for_backward(trace.gates, trace.cells, trace.hidden, values, qparams.scale)
        ctx.gradient = gradient
        return last_state(trace, h)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor | None, ...]:
        gates, cells, hidden, values, scale = ctx.saved_tensors
        with torch.autocast(gates.device.type, enabled=False):
            d_gates, dh, dc = trace_gradients(gates, cells, values, (y.transpose(0, 1), h, c), ctx.gradient)
            rows = d_gates.view(-1, d_gates.shape[-1]).to(ctx.gradient)
            d_values = weight_gradient(rows, hidden[:-1], scale)
        return d_gates.float(), dh, dc, d_values, bias_gradient(rows), None, None, None
