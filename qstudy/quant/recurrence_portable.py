"""The LSTM recurrence's time loops in torch alone: for other devices, other dtypes, and where numba has no kernel."""

import torch
from torch import Tensor

from qstudy.quant.integer import Grid, accumulate, record


def quantize_hidden(h: Tensor, scale: float, high: int) -> Tensor:
    """Snap a hidden state in (-1, 1) to the symmetric grid of 2 * high + 1 levels."""
    return (h / scale).round_().clamp_(-high, high).mul_(scale)


def float_steps(
    inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, scale: float, high: int, reuse: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `recurrence.float_steps`: gates, cells, snapped hidden states, outputs."""
    gates = inputs if reuse else inputs.clone()
    cells, outputs = _buffers(gates, c)
    snapped = torch.empty_like(cells)
    snapped[0] = quantize_hidden(h, scale, high)
    transposed = weight.t().contiguous()
    for t, gate in enumerate(gates):
        gate.addmm_(snapped[t], transposed)
        _cell(gate, cells[t], cells[t + 1], outputs[t])
        snapped[t + 1] = quantize_hidden(outputs[t], scale, high)
    return gates, cells, snapped, outputs


def integer_steps(
    accumulators: Tensor,
    h: Tensor,
    c: Tensor,
    codes: Tensor,
    scales: tuple[Tensor, Tensor],
    bias: Tensor,
    grid: Grid,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `recurrence.integer_steps`: gates, cells, codes of the hidden states, outputs."""
    gates = (accumulators * scales[0]).float().add_(bias)
    cells, outputs = _buffers(gates, c)
    hidden = torch.empty(cells.shape, dtype=grid.codes(h[:0]).dtype, device=h.device)
    hidden[0] = grid.codes(h)
    products = torch.empty_like(accumulators)
    for t, gate in enumerate(gates):
        products[t] = accumulate(hidden[t], grid.zero_point, codes)
        gate.add_((products[t] * scales[1]).float())
        _cell(gate, cells[t], cells[t + 1], outputs[t])
        hidden[t + 1] = grid.codes(outputs[t])
    record(products)
    return gates, cells, hidden, outputs


def step_gradients(
    gates: Tensor,
    cells: Tensor,
    weight: Tensor,
    upstream: tuple[Tensor, Tensor, Tensor],
    gradient: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `recurrence.step_gradients`; the products of the loop are in the dtype of `gates`."""
    grad_outputs, grad_last_h, grad_last_c = upstream
    grad_gates = torch.empty_like(gates)
    grad_h, grad_c = grad_last_h.clone(), grad_last_c.clone()
    for t in range(len(gates) - 1, -1, -1):
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
    return grad_gates, grad_h, grad_c


def _buffers(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Cell states (T + 1, B, H) with the initial one in place, and outputs (T, B, H)."""
    frames, batch, _ = gates.shape
    cells = gates.new_empty(frames + 1, batch, c.shape[1])
    cells[0] = c
    return cells, gates.new_empty(frames, batch, c.shape[1])


def _cell(gate: Tensor, before: Tensor, after: Tensor, output: Tensor) -> None:
    """One step in place: pre-activations (B, 4H) become gates, the cell state and the hidden state are written."""
    hidden = gate.shape[1] // 4
    gate[:, : 2 * hidden].sigmoid_()
    gate[:, 2 * hidden : 3 * hidden].tanh_()
    gate[:, 3 * hidden :].sigmoid_()
    i, f, g, o = gate.chunk(4, 1)
    torch.mul(f, before, out=after).add_(i * g)
    torch.tanh(after, out=output).mul_(o)
