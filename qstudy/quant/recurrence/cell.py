"""One frame of an LSTM whose pre-activations are a mixture of two branches', with a hand-written backward pass.

On the CPU it is one compiled call per direction, with the arithmetic of `kernels.cell`; elsewhere torch's operations.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from qstudy.jit import compiled
from qstudy.quant.kernels import cell, usable

Floats = NDArray[np.float32]
ONE = cell.ONE


def lstm_cell(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Pre-activations (B, 4H) in torch's order and the cell state (B, H) to the next hidden and cell state."""
    return mixed_cell(gates, gates, torch.ones(len(gates), device=gates.device), c)


def mixed_cell(first: Tensor, second: Tensor, share: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The cell of the pre-activations share * first + (1 - share) * second.

    Args:
        first: (B, 4H) float, gates in torch's order.
        second: likewise.
        share: (B,) float32, 0 to 1; at either end the other branch counts for nothing.
        c: cell state (B, H) float32.

    Returns:
        Hidden and cell state (B, H) float32.
    """
    if usable(c):
        h, after = _MixedCell.apply(first, second, share, c)
        return h, after
    whole = share.unsqueeze(1)
    i, f, g, o = (whole * first.float() + (1 - whole) * second.float()).chunk(4, 1)
    after = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(after), after


class _MixedCell(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, share: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        ctx.types = first.dtype, second.dtype
        given = [each.detach().float().contiguous() for each in (first, second, share, c)]
        gates, h, after = torch.empty_like(given[0]), torch.empty_like(given[3]), torch.empty_like(given[3])
        forward(*(each.numpy() for each in (*given, gates, after, h)))
        ctx.save_for_backward(*given, gates, after)
        return h, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor, grad_c: Tensor) -> tuple[Tensor | None, ...]:
        first, second, share, c, gates, after = ctx.saved_tensors
        grads = [torch.empty_like(each) for each in (first, second, share)]
        before = grad_c.float().contiguous().clone()  # becomes the gradient of c
        given = (first, second, share, c, gates, after, grad_h.float().contiguous(), before, *grads)
        backward(*(each.numpy() for each in given))
        return grads[0].to(ctx.types[0]), grads[1].to(ctx.types[1]), grads[2], before


@compiled(uses=(cell,))
def forward(
    first: Floats, second: Floats, share: Floats, before: Floats, gates: Floats, after: Floats, h: Floats
) -> None:
    """`mixed_cell`, row by row: gates (B, 4H), cell and hidden state after (B, H) are written."""
    sums = np.empty(gates.shape[1], np.float32)
    for row in range(gates.shape[0]):
        p, one, other = share[row], first[row], second[row]
        if p == ONE:
            sums[:] = one
        elif p == 0:
            sums[:] = other
        else:
            for j in range(sums.size):
                sums[j] = p * one[j] + (ONE - p) * other[j]
        cell.activate(sums, gates[row])
        cell.advance(gates[row], before[row], after[row], h[row])


@compiled(uses=(cell,))
def backward(
    first: Floats,
    second: Floats,
    share: Floats,
    before: Floats,
    gates: Floats,
    after: Floats,
    grad_h: Floats,
    grad_c: Floats,
    grad_first: Floats,
    grad_second: Floats,
    grad_share: Floats,
) -> None:
    """Backward through `forward`: `grad_c` (B, H) is moved on to the state before, the last three are written."""
    size = grad_c.shape[1]
    scratch, zeros, grad = np.empty((2, size), np.float32), np.zeros(size, np.float32), np.empty(4 * size, np.float32)
    for row in range(gates.shape[0]):
        cell.retreat(gates[row], before[row], after[row], grad_h[row], zeros, grad_c[row], scratch, grad)
        p, one, other, total = share[row], first[row], second[row], np.float32(0)
        for j in range(grad.size):
            total += grad[j] * (one[j] - other[j])
        grad_share[row] = total
        into_first, into_second = grad_first[row], grad_second[row]
        for j in range(grad.size):
            into_first[j] = p * grad[j]
        for j in range(grad.size):
            into_second[j] = (ONE - p) * grad[j]
