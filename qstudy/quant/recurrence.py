"""The LSTM recurrence with a quantized hidden state: one autograd function over the whole utterance.

A naive autograd loop over time costs eight times `nn.LSTM`; here the forward pass keeps just what the hand-written
backward pass needs, and the gradients of the weights are one large matrix product at the end.
"""

from typing import Any

import torch
from torch import Tensor


def quantize_hidden(h: Tensor, scale: float, high: int) -> Tensor:
    """Snap a hidden state in (-1, 1) to the symmetric grid of 2 * high + 1 levels."""
    return (h / scale).round_().clamp_(-high, high).mul_(scale)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, scale: float, high: int) -> Any:
        frames, batch, gates_size = inputs.shape
        hidden = gates_size // 4
        gates = torch.empty_like(inputs)
        cells = inputs.new_empty(frames + 1, batch, hidden)
        snapped = inputs.new_empty(frames + 1, batch, hidden)
        outputs = inputs.new_empty(frames, batch, hidden)
        cells[0] = c
        snapped[0] = quantize_hidden(h, scale, high)
        transposed = weight.t().contiguous()
        for t in range(frames):
            gate = torch.addmm(inputs[t], snapped[t], transposed, out=gates[t])
            gate[:, : 2 * hidden].sigmoid_()
            gate[:, 2 * hidden : 3 * hidden].tanh_()
            gate[:, 3 * hidden :].sigmoid_()
            i, f, g, o = gate.chunk(4, 1)
            torch.mul(f, cells[t], out=cells[t + 1]).addcmul_(i, g)
            torch.tanh(cells[t + 1], out=outputs[t]).mul_(o)
            snapped[t + 1] = quantize_hidden(outputs[t], scale, high)
        ctx.save_for_backward(gates, cells, snapped, weight)
        last_h = outputs[-1] if frames else h
        return outputs, last_h.clone(), cells[-1].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*recurrence_gradients(*ctx.saved_tensors, *grads), None, None)


def recurrence_gradients(
    gates: Tensor,
    cells: Tensor,
    snapped: Tensor,
    weight: Tensor,
    grad_outputs: Tensor,
    grad_last_h: Tensor,
    grad_last_c: Tensor,
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

    Returns:
        Gradients of the gates' pre-activations (T, B, 4H), the initial hidden (B, H) and cell state (B, H), and the
        hidden weights (4H, H).
    """
    frames, _batch, gates_size = gates.shape
    hidden = gates_size // 4
    grad_gates = torch.empty_like(gates)
    grad_h, grad_c = grad_last_h.clone(), grad_last_c.clone()
    for t in range(frames - 1, -1, -1):
        i, f, g, o = gates[t].chunk(4, 1)
        di, df, dg, do = grad_gates[t].chunk(4, 1)
        tanh_c = torch.tanh(cells[t + 1])
        grad_h += grad_outputs[t]
        torch.mul(grad_h * tanh_c, o * (1 - o), out=do)
        grad_c.addcmul_(grad_h * o, 1 - tanh_c * tanh_c)
        torch.mul(grad_c * g, i * (1 - i), out=di)
        torch.mul(grad_c * cells[t], f * (1 - f), out=df)
        torch.mul(grad_c * i, 1 - g * g, out=dg)
        grad_c.mul_(f)
        grad_h = grad_gates[t] @ weight  # straight through the rounding of the hidden state
    flat = grad_gates.view(-1, gates_size)
    grad_weight = flat.t() @ snapped[:frames].reshape(-1, hidden)
    return grad_gates, grad_h, grad_c, grad_weight


def quantized_recurrence(
    inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, scale: float, high: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Run an LSTM whose hidden state is snapped to a grid before each product with the hidden weights.

    Args:
        inputs: gate pre-activations from the inputs, biases included, (T, B, 4H) float32, gates in torch's order.
        h: initial hidden state (B, H) float32.
        c: initial cell state (B, H) float32.
        weight: hidden weights (4H, H) float32, as quantized as they are to be.
        scale: step of the hidden state's grid.
        high: greatest integer of the hidden state's grid.

    Returns:
        Outputs before snapping (T, B, H), last hidden state (B, H), last cell state (B, H).
    """
    return _Recurrence.apply(inputs, h, c, weight, scale, high)
