"""The LSTM recurrence's time loops in torch alone: for other devices, other dtypes, and where numba has no kernel."""

from typing import NamedTuple

import torch
from torch import Tensor

from qstudy.quant.integer.accumulator import Grid, record, recording
from qstudy.quant.integer.matmul import integer_matmul


def quantize_hidden(h: Tensor, scale: float, high: int) -> Tensor:
    """Snap a hidden state in (-1, 1) to the symmetric grid of 2 * high + 1 levels."""
    return (h / scale).round_().clamp_(-high, high).mul_(scale)


def float_steps(
    inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, scale: float, high: int, reuse: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `recurrence.float_steps`: gates, cells, snapped hidden states, outputs."""
    gates = inputs if reuse else inputs.clone()
    states = _States.start(gates, c)
    snapped = torch.empty_like(states.cells)
    snapped[0] = quantize_hidden(h, scale, high)
    transposed = weight.t().contiguous()
    frames, hidden = gates.unbind(), snapped.unbind()
    for t, gate in enumerate(frames):
        output = states.advance(t, gate.addmm_(hidden[t], transposed))
        torch.div(output, scale, out=hidden[t + 1]).round_().clamp_(-high, high).mul_(scale)
    return gates, states.cells, snapped, states.outputs


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
    states = _States.start(gates, c)
    hidden = torch.empty(states.cells.shape, dtype=grid.codes(h[:0]).dtype, device=h.device)
    hidden[0] = grid.codes(h)
    low, high = grid.bounds()
    kept = []
    for t, gate in enumerate(gates.unbind()):
        product = integer_matmul(hidden[t], codes)  # the grid is symmetric; to ask it would halt a GPU at every frame
        if recording():
            kept.append(product)
        output = states.advance(t, gate.add_((product * scales[1]).float()))
        hidden[t + 1] = torch.div(output, grid.step).add_(grid.zero_point).round_().clamp_(low, high)
    if recording():
        record(torch.stack(kept) if kept else accumulators)
    return gates, states.cells, hidden, states.outputs


def step_gradients(
    gates: Tensor,
    cells: Tensor,
    weight: Tensor,
    upstream: tuple[Tensor, Tensor, Tensor],
    gradient: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `recurrence.step_gradients`; the products of the loop are in the dtype of `gates`."""
    grad_outputs, grad_h, grad_c = upstream[0], upstream[1].clone(), upstream[2].clone()
    to_cell, by_cell, by_output = _slopes(gates, cells)
    frames, batch, _, size = by_cell.shape
    grad_gates = torch.empty_like(by_cell)
    rows = grad_gates.view(frames, batch, -1).unbind()
    forget = gates.view(by_cell.shape)[:, :, 1].unbind()
    wide = grad_c.unsqueeze(1)
    for t in range(frames - 1, -1, -1):
        grad_h += grad_outputs[t]
        grad_c.addcmul_(grad_h, to_cell[t])
        torch.mul(wide, by_cell[t], out=grad_gates[t])
        torch.mul(grad_h, by_output[t], out=grad_gates[t, :, 3])
        grad_c.mul_(forget[t])
        torch.mm(rows[t], weight, out=grad_h)  # straight through the rounding of the hidden state
    return grad_gates.view(frames, batch, 4 * size), grad_h, grad_c


def _slopes(gates: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What needs no gradient, for all frames at once.

    Returns:
        How the cell state moves with the hidden state (T, B, H); how each pre-activation moves the cell state
        (T, B, 4, H), the output gate's left out; how the output gate's pre-activation moves the hidden state (T, B, H).
    """
    i, f, g, o = gates.chunk(4, 2)
    bent = cells[1:].tanh()
    by_cell = gates.new_empty(*gates.shape[:2], 4, bent.shape[2])
    torch.mul((1 - i).mul_(i), g, out=by_cell[:, :, 0])
    torch.mul((1 - f).mul_(f), cells[:-1], out=by_cell[:, :, 1])
    torch.mul((g * g).neg_().add_(1), i, out=by_cell[:, :, 2])
    by_cell[:, :, 3] = 0
    return (bent * bent).neg_().add_(1).mul_(o), by_cell, (1 - o).mul_(o).mul_(bent)


class _States(NamedTuple):
    """Buffers of the forward pass, and views of each frame, made once."""

    cells: Tensor
    outputs: Tensor
    cell: tuple[Tensor, ...]
    output: tuple[Tensor, ...]

    @classmethod
    def start(cls, gates: Tensor, c: Tensor) -> "_States":
        """Cell states (T + 1, B, H) with the initial one in place, and outputs (T, B, H)."""
        frames, batch, _ = gates.shape
        cells = gates.new_empty(frames + 1, batch, c.shape[1])
        cells[0] = c
        outputs = gates.new_empty(frames, batch, c.shape[1])
        return cls(cells, outputs, cells.unbind(), outputs.unbind())

    def advance(self, t: int, gate: Tensor) -> Tensor:
        """One step: pre-activations (B, 4H) become gates, the cell state is written, and the output, returned."""
        hidden = gate.shape[1] // 4
        i, f, g, o = gate.split(hidden, 1)
        gate[:, : 2 * hidden].sigmoid_()
        g.tanh_()
        o.sigmoid_()
        torch.mul(f, self.cell[t], out=self.cell[t + 1]).add_(i * g)
        return torch.tanh(self.cell[t + 1], out=self.output[t]).mul_(o)
