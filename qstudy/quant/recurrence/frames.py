"""The LSTM recurrence with a quantized hidden state: one autograd function over the whole utterance.

A naive autograd loop over time costs eight times `nn.LSTM`; here the forward pass keeps just what the hand-written
backward pass needs, and the gradients of the weights are one large matrix product at the end. Tensors are (T, B, ...).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qstudy.quant.integer.accumulator import QParams
from qstudy.quant.products import affine, bias_gradient, input_gradient, weight_gradient
from qstudy.quant.quantizers import bounds, integer_type
from qstudy.quant.recurrence import loops


class Trace(NamedTuple):
    """What a forward pass over time leaves for the backward pass."""

    gates: Tensor
    """After sigmoid and tanh (T, B, 4H) float32, in torch's order."""
    cells: Tensor
    """(T + 1, B, H) float32, the initial one first."""
    hidden: Tensor
    """What the products saw (T + 1, B, H), the initial one first: fake-quantized values, float32, or codes."""
    outputs: Tensor
    """Hidden states before fake quantization (T, B, H) float32."""


def quantized_recurrence(
    inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, scale: Tensor, high: int, gradient: torch.dtype | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Run an LSTM whose hidden state is quantized before each product with the hidden weights.

    Args:
        inputs: gate pre-activations from the inputs, biases included, (T, B, 4H) float32, gates in torch's order.
        h: initial hidden state (B, H) float32.
        c: initial cell state (B, H) float32.
        weight: hidden weights (4H, H) float32, as quantized as they are to be.
        scale: of the hidden state's quantizer ().
        high: greatest integer of the hidden state's quantizer.
        gradient: in which the backward pass multiplies; None: the dtype of `inputs`.

    Returns:
        Outputs before fake quantization (T, B, H), last hidden state (B, H), last cell state (B, H).
    """
    return _Recurrence.apply(inputs, h, c, weight, scale, high, gradient or inputs.dtype)


def quantized_lstm(
    x: Tensor,
    state: tuple[Tensor, Tensor],
    w_input: Tensor,
    w_hidden: Tensor,
    bias: Tensor,
    scale: Tensor,
    high: int,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One LSTM layer in float whose hidden state is quantized before each product with the hidden weights.

    Args:
        x: inputs (B, T, D) float, fake-quantized by the caller if they are to be.
        state: initial h and c, (1, B, H) float32 each.
        w_input: (4H, D) float32, as quantized as they are to be; gates in torch's order.
        w_hidden: (4H, H) float32.
        bias: sum of both biases (4H,) float32.
        scale: of the hidden state's quantizer ().
        high: greatest integer of the hidden state's quantizer.

    Returns:
        Outputs before fake quantization (B, T, H) and the state after the last frame.
    """
    y, h, c = _QuantizedLSTM.apply(x.float(), state[0][0], state[1][0], w_input, w_hidden, bias, scale, high)
    return y, (h.unsqueeze(0), c.unsqueeze(0))


def float_trace(
    inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, scale: Tensor, high: int, reuse: bool = False
) -> Trace:
    """The forward pass of `quantized_recurrence`; `reuse`: the gates may overwrite the inputs."""
    return Trace(*loops(inputs, h, c, weight).float_trace(inputs, h, c, weight, scale, high, reuse))


def last_state(trace: Trace, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (B, T, H) and the last h and c, (B, H) each, after the initial h."""
    last_h = trace.outputs[-1] if len(trace.outputs) else h
    return trace.outputs.transpose(0, 1), last_h.clone(), trace.cells[-1].clone()


def integer_trace(
    accumulators: Tensor,
    h: Tensor,
    c: Tensor,
    codes: Tensor,
    scales: tuple[Tensor, Tensor],
    bias: Tensor,
    qparams: QParams,
) -> Trace:
    """The forward pass with integer products.

    Args:
        accumulators: of the inputs' product (T, B, 4H) int32, or whole float64 above 8 bits.
        h: initial hidden state (B, H) float32.
        c: initial cell state (B, H) float32.
        codes: hidden weights (4H, H) int8 or int16.
        scales: what one unit of the inputs' and of the hidden accumulators stands for, (4H,) or (1,) float32 each.
        bias: (4H,) float32.
        qparams: of the hidden state; symmetric.
    """
    high = bounds(qparams.bits)[1]
    first = torch.round(h / qparams.scale).clamp_(-high, high).to(integer_type(qparams.bits))
    with torch.autocast(h.device.type, enabled=False):
        by = loops(accumulators, first, c, codes, bias)
        return Trace(*by.integer_trace(accumulators, first, c, codes, scales, bias, qparams))


def trace_gradients(
    gates: Tensor,
    cells: Tensor,
    weight: Tensor,
    upstream: tuple[Tensor, Tensor, Tensor],
    gradient: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Backward through time.

    Args:
        gates: after sigmoid and tanh (T, B, 4H).
        cells: (T + 1, B, H).
        weight: hidden weights (4H, H).
        upstream: gradients of the outputs (T, B, H), the last h and the last c, (B, H) each.
        gradient: in which the products are computed.

    Returns:
        Gradients of the gates' pre-activations (T, B, 4H) and of the initial h and c, (B, H) each.
    """
    return loops(gates, cells, weight).trace_gradients(gates, cells, weight, upstream, gradient)


def recurrence_gradients(
    gates: Tensor,
    cells: Tensor,
    quantized: Tensor,
    weight: Tensor,
    grad_outputs: Tensor,
    grad_last_h: Tensor,
    grad_last_c: Tensor,
    gradient: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Backward through time; straight through every rounding.

    Args:
        gates: after sigmoid and tanh (T, B, 4H), in torch's order.
        cells: (T + 1, B, H), the initial one first.
        quantized: the hidden states that the products saw (T + 1, B, H), the initial one first.
        weight: hidden weights (4H, H), as quantized.
        grad_outputs: (T, B, H).
        grad_last_h: of the last hidden state (B, H).
        grad_last_c: of the last cell state (B, H).
        gradient: in which the products are computed; None: the dtype of `gates`.

    Returns:
        Gradients of the gates' pre-activations (T, B, 4H), the initial hidden (B, H) and cell state (B, H), and the
        hidden weights (4H, H).
    """
    dtype = gradient or gates.dtype
    with torch.autocast(gates.device.type, enabled=False):
        upstream = (grad_outputs, grad_last_h, grad_last_c)
        grad_gates, grad_h, grad_c = trace_gradients(gates, cells, weight, upstream, dtype)
        flat = grad_gates.view(-1, gates.shape[-1])
        before = quantized[:-1].reshape(len(flat), quantized.shape[-1])
        grad_weight = (flat.to(dtype).t() @ before.to(dtype)).to(weight.dtype)
    return grad_gates, grad_h, grad_c, grad_weight


class _QuantizedLSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h: Tensor,
        c: Tensor,
        w_input: Tensor,
        w_hidden: Tensor,
        bias: Tensor,
        scale: Tensor,
        high: int,
    ) -> Any:
        with torch.autocast(x.device.type, enabled=False):
            frames = x.transpose(0, 1).contiguous()
            inputs = affine(frames.view(-1, x.shape[2]), w_input, bias).view(*frames.shape[:2], len(w_input))
            trace = float_trace(inputs, h.float(), c.float(), w_hidden, scale, high, reuse=True)
        ctx.save_for_backward(trace.gates, trace.cells, trace.hidden, frames, w_input, w_hidden)
        return last_state(trace, h)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor | None, ...]:
        gates, cells, hidden, frames, w_input, w_hidden = ctx.saved_tensors
        with torch.autocast(gates.device.type, enabled=False):
            d_gates, dh, dc = trace_gradients(gates, cells, w_hidden, (y.transpose(0, 1), h, c), gates.dtype)
            rows = d_gates.view(-1, d_gates.shape[-1])
            wanted = ctx.needs_input_grad[0]
            dx = input_gradient(rows, w_input, None).view(frames.shape).transpose(0, 1) if wanted else None
            d_weights = weight_gradient(rows, frames), weight_gradient(rows, hidden[:-1])
        return dx, dh, dc, *d_weights, bias_gradient(rows), None, None


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, scale: Tensor, high: int, gradient: torch.dtype
    ) -> Any:
        with torch.autocast(inputs.device.type, enabled=False):
            trace = float_trace(inputs, h, c, weight, scale, high)
        ctx.save_for_backward(trace.gates, trace.cells, trace.hidden, weight)
        ctx.gradient = gradient
        y, last_h, last_c = last_state(trace, h)
        return y.transpose(0, 1), last_h, last_c

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor | None, ...]:
        gates, cells, quantized, weight = ctx.saved_tensors
        return (*recurrence_gradients(gates, cells, quantized, weight, y, h, c, ctx.gradient), None, None, None)
