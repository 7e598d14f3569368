"""The LSTM recurrence with a quantized hidden state: one autograd function over the whole utterance.

A naive autograd loop over time costs eight times `nn.LSTM`; here the forward pass keeps just what the hand-written
backward pass needs, and the gradients of the weights are one large matrix product at the end. Tensors are (T, B, ...).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from qstudy.quant import recurrence_kernels as kernels
from qstudy.quant import recurrence_portable as portable
from qstudy.quant.integer import Grid
from qstudy.quant.kernels import usable


class Steps(NamedTuple):
    """What a forward pass over time leaves for the backward pass."""

    gates: Tensor
    """After sigmoid and tanh (T, B, 4H) float32, in torch's order."""
    cells: Tensor
    """(T + 1, B, H) float32, the initial one first."""
    hidden: Tensor
    """What the products saw (T + 1, B, H), the initial one first: snapped values, float32, or codes."""
    outputs: Tensor
    """Hidden states before snapping (T, B, H) float32."""


def quantized_recurrence(
    inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, scale: float, high: int, gradient: torch.dtype | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Run an LSTM whose hidden state is snapped to a grid before each product with the hidden weights.

    Args:
        inputs: gate pre-activations from the inputs, biases included, (T, B, 4H) float32, gates in torch's order.
        h: initial hidden state (B, H) float32.
        c: initial cell state (B, H) float32.
        weight: hidden weights (4H, H) float32, as quantized as they are to be.
        scale: step of the hidden state's grid.
        high: greatest integer of the hidden state's grid.
        gradient: in which the backward pass multiplies; None: the dtype of `inputs`.

    Returns:
        Outputs before snapping (T, B, H), last hidden state (B, H), last cell state (B, H).
    """
    return _Recurrence.apply(inputs, h, c, weight, scale, high, gradient or inputs.dtype)


def float_steps(inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, scale: float, high: int) -> Steps:
    """The forward pass of `quantized_recurrence`."""
    loops = kernels if usable(inputs, h, c, weight) else portable
    return Steps(*loops.float_steps(inputs, h, c, weight, scale, high))


def integer_steps(
    accumulators: Tensor,
    h: Tensor,
    c: Tensor,
    codes: Tensor,
    scales: tuple[Tensor, Tensor],
    bias: Tensor,
    grid: Grid,
) -> Steps:
    """The forward pass with integer products.

    Args:
        accumulators: of the inputs' product (T, B, 4H) int32, or whole float64 above 8 bits.
        h: initial hidden state (B, H) float32.
        c: initial cell state (B, H) float32.
        codes: hidden weights (4H, H) int8 or int16.
        scales: what one unit of the inputs' and of the hidden accumulators stands for, (4H,) or (1,) float32 each.
        bias: (4H,) float32.
        grid: of the hidden state; symmetric.
    """
    loops = kernels if usable(accumulators, h, c, codes, bias) and grid.bits <= 8 else portable
    return Steps(*loops.integer_steps(accumulators, h, c, codes, scales, bias, grid))


def step_gradients(
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
    loops = kernels if usable(gates, cells, weight) else portable
    return loops.step_gradients(gates, cells, weight, upstream, gradient)


def recurrence_gradients(
    gates: Tensor,
    cells: Tensor,
    snapped: Tensor,
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
        snapped: the hidden states that the products saw (T + 1, B, H), the initial one first.
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
        grad_gates, grad_h, grad_c = step_gradients(gates, cells, weight, upstream, dtype)
        flat = grad_gates.view(-1, gates.shape[-1])
        grad_weight = (flat.to(dtype).t() @ snapped[:-1].reshape(len(flat), -1).to(dtype)).to(weight.dtype)
    return grad_gates, grad_h, grad_c, grad_weight


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, scale: float, high: int, gradient: torch.dtype
    ) -> Any:
        with torch.autocast(inputs.device.type, enabled=False):
            steps = float_steps(inputs, h, c, weight, scale, high)
        ctx.save_for_backward(steps.gates, steps.cells, steps.hidden, weight)
        ctx.gradient = gradient
        last_h = steps.outputs[-1] if len(inputs) else h
        return steps.outputs, last_h.clone(), steps.cells[-1].clone()

    @staticmethod
    def backward(ctx: Any, y: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor | None, ...]:
        gates, cells, snapped, weight = ctx.saved_tensors
        return (*recurrence_gradients(gates, cells, snapped, weight, y, h, c, ctx.gradient), None, None, None)
