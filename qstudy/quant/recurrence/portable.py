"""The LSTM recurrence's time loops in torch alone: for other devices, other dtypes, and where numba has no kernel."""

from collections.abc import Callable

import torch
from torch import Tensor

from qstudy.quant.integer.accumulator import QParams, record, recording
from qstudy.quant.integer.matmul import EXACT_FLOAT32
from qstudy.quant.quantizers import bounds
from qstudy.quant.recurrence.loop import Loop


class TorchLoops:
    """The three loops; `run` says how their frames are run: at once (`Loop.run`), or from CUDA graphs."""

    def __init__(self, run: Callable[[Loop], None]) -> None:
        self._run = run

    def float_trace(
        self, inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, scale: Tensor, high: int, reuse: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `recurrence.float_trace`: gates, cells, fake-quantized hidden states, outputs."""
        gates = inputs if reuse else inputs.clone()
        first = (h / scale).round_().clamp_(-high, high).mul_(scale)
        cells, quantized, outputs = states(c, len(gates)), states(first, len(gates)), h.new_empty(len(gates), *h.shape)
        fixed, carried = (weight.t().contiguous(), scale), (c.clone(), first)
        written = (cells[1:], quantized[1:], outputs)
        self._run(Loop(float_frames, (high,), fixed, carried, (), (gates,), written))
        return gates, cells, quantized, outputs

    def integer_trace(
        self,
        accumulators: Tensor,
        first: Tensor,
        c: Tensor,
        codes: Tensor,
        scales: tuple[Tensor, Tensor],
        bias: Tensor,
        qparams: QParams,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `recurrence.integer_trace`: gates, cells, codes of the hidden states, outputs."""
        frames, wide = len(accumulators), torch.int16 in (first.dtype, codes.dtype)
        gates = (accumulators * scales[0]).float().add_(bias)
        cells, hidden, outputs = states(c, frames), states(first, frames), c.new_empty(frames, *c.shape)
        exact = torch.float64 if wide or codes.shape[1] > EXACT_FLOAT32 else torch.float32
        products = gates.new_empty(gates.shape, dtype=torch.float64 if wide else torch.int32) if recording() else None
        fixed = (
            codes.t().to(exact).contiguous(),
            scales[1].to(torch.float64 if wide else torch.float32),
            qparams.scale,
        )
        written = (cells[1:], hidden[1:], outputs, *(() if products is None else (products,)))
        carried = (c.clone(), first.to(exact))
        self._run(Loop(integer_frames, (bounds(qparams.bits)[1],), fixed, carried, (), (gates,), written))
        if products is not None:
            record(products)
        return gates, cells, hidden, outputs

    def trace_gradients(
        self,
        gates: Tensor,
        cells: Tensor,
        weight: Tensor,
        upstream: tuple[Tensor, Tensor, Tensor],
        gradient: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `recurrence.trace_gradients`; the products of the loop are in the dtype of `gates`."""
        grad_h, grad_c = upstream[1].clone(), upstream[2].clone()
        to_cell, slopes = _slopes(gates, cells)
        forget = gates.view(slopes.shape)[:, :, 1]
        read = (to_cell, forget, upstream[0])
        self._run(Loop(gradient_frames, (), (weight,), (grad_h, grad_c), read, (slopes,), (), backward=True))
        return slopes.view(gates.shape), grad_h, grad_c


def states(first: Tensor, frames: int) -> Tensor:
    """Room for so many states after the first one (B, H): (T + 1, B, H)."""
    every = first.new_empty(frames + 1, *first.shape)
    every[0] = first
    return every


def float_frames(
    high: int,
    weight: Tensor,
    scale: Tensor,
    c: Tensor,
    h: Tensor,
    gates: Tensor,
    cells: Tensor,
    quantized: Tensor,
    outputs: Tensor,
) -> None:
    """Frames with a quantized hidden state h (B, H); weight (H, 4H); `cells` and `quantized` (T, B, H) after each."""
    cell, hidden = (c, *cells.unbind()), (h, *quantized.unbind())
    for t, (gate, output) in enumerate(zip(gates.unbind(), outputs.unbind(), strict=True)):
        _advance(gate.addmm_(hidden[t], weight), cell[t], cell[t + 1], output)
        torch.div(output, scale, out=hidden[t + 1]).round_().clamp_(-high, high).mul_(scale)
    c.copy_(cell[-1])
    h.copy_(hidden[-1])


def integer_frames(
    high: int,
    weight: Tensor,
    scale: Tensor,
    hidden_scale: Tensor,
    c: Tensor,
    code: Tensor,
    gates: Tensor,
    cells: Tensor,
    hidden: Tensor,
    outputs: Tensor,
    *products: Tensor,
) -> None:
    """Frames with integer products, in floats that hold them exactly.

    Args:
        high: greatest code of the hidden state.
        weight: codes (H, 4H) in those floats, as are the hidden state's in `code` (B, H).
        scale: what one unit of a product stands for, in the dtype that it is multiplied in.
        hidden_scale: of the hidden state's quantizer.
        c: cell state (B, H).
        code: of the hidden state.
        gates: their pre-activations without the hidden state's part (T, B, 4H).
        cells: after each frame (T, B, H), as `hidden`, the codes as integers, and `outputs`.
        products: where to leave the accumulators (T, B, 4H), if at all.
    """
    cell = (c, *cells.unbind())
    for t, (gate, output) in enumerate(zip(gates.unbind(), outputs.unbind(), strict=True)):
        product = code @ weight
        for each in products:
            each[t] = product
        gate.add_((product.to(scale.dtype) * scale).to(gate.dtype))
        _advance(gate, cell[t], cell[t + 1], output)
        torch.div(output, hidden_scale, out=code).round_().clamp_(-high, high)
        hidden[t] = code
    c.copy_(cell[-1])


def gradient_frames(
    weight: Tensor,
    grad_h: Tensor,
    grad_c: Tensor,
    to_cell: Tensor,
    forget: Tensor,
    grad_outputs: Tensor,
    slopes: Tensor,
) -> None:
    """Frames of the backward pass; slopes (T, B, 4, H), see `_slopes`, become the pre-activations' gradients."""
    frames, batch, _, size = slopes.shape
    rows, wide = slopes.view(frames, batch, 4 * size).unbind(), grad_c.unsqueeze(1)
    by_cell, by_output = slopes[:, :, :3].unbind(), slopes[:, :, 3].unbind()
    for t in range(frames - 1, -1, -1):
        grad_h += grad_outputs[t]
        grad_c.addcmul_(grad_h, to_cell[t])
        by_cell[t].mul_(wide)
        by_output[t].mul_(grad_h)
        grad_c.mul_(forget[t])
        torch.mm(rows[t], weight, out=grad_h)  # straight through the rounding of the hidden state


def _advance(gate: Tensor, before: Tensor, after: Tensor, output: Tensor) -> None:
    """One frame: pre-activations (B, 4H) become gates, and the cell state and the output (B, H) are written."""
    hidden = gate.shape[1] // 4
    i, f, g, o = gate.split(hidden, 1)
    gate[:, : 2 * hidden].sigmoid_()
    g.tanh_()
    o.sigmoid_()
    torch.mul(f, before, out=after).add_(i * g)
    torch.tanh(after, out=output).mul_(o)


def _slopes(gates: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """What needs no gradient, for all frames at once.

    Returns:
        How the cell state moves with the hidden state (T, B, H); how the first three pre-activations move the cell
        state, and the last one, the output gate's, the hidden state (T, B, 4, H).
    """
    i, f, g, o = gates.chunk(4, 2)
    bent = cells[1:].tanh()
    slopes = gates.new_empty(*gates.shape[:2], 4, bent.shape[2])
    torch.mul((1 - i).mul_(i), g, out=slopes[:, :, 0])
    torch.mul((1 - f).mul_(f), cells[:-1], out=slopes[:, :, 1])
    torch.mul((g * g).neg_().add_(1), i, out=slopes[:, :, 2])
    torch.mul((1 - o).mul_(o), bent, out=slopes[:, :, 3])
    return (bent * bent).neg_().add_(1).mul_(o), slopes
