"""The LSTM recurrence, forward and backward: compiled for the CPU, from graphs on a GPU, or in torch alone."""

from typing import Protocol

import torch
from torch import Tensor

from qstudy.quant import kernels
from qstudy.quant.integer.accumulator import QParams
from qstudy.quant.recurrence import compiled, graphed
from qstudy.quant.recurrence.loop import Loop
from qstudy.quant.recurrence.portable import TorchLoops

Four = tuple[Tensor, Tensor, Tensor, Tensor]
Three = tuple[Tensor, Tensor, Tensor]


class Loops(Protocol):
    """The time loops; `frames` says of each what it takes and gives."""

    def float_trace(
        self, inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, scale: Tensor, high: int, reuse: bool
    ) -> Four:
        """Forward in float."""

    def integer_trace(
        self,
        accumulators: Tensor,
        first: Tensor,
        c: Tensor,
        codes: Tensor,
        scales: tuple[Tensor, Tensor],
        bias: Tensor,
        qparams: QParams,
    ) -> Four:
        """Forward with integer products; `first`: the codes of the initial hidden state (B, H)."""

    def trace_gradients(
        self, gates: Tensor, cells: Tensor, weight: Tensor, upstream: Three, gradient: torch.dtype
    ) -> Three:
        """Backward."""


IN_TORCH = TorchLoops(Loop.run)
FROM_GRAPHS = TorchLoops(graphed.Graphs().run)


def loops(*operands: Tensor) -> Loops:
    """The fastest loops that take these tensors."""
    if kernels.usable(*operands):
        return compiled
    return FROM_GRAPHS if graphed.usable(*operands) else IN_TORCH
