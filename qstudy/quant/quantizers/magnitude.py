"""Trained magnitudes: scales and clips that gradients move by shares of themselves."""

import torch
from torch import Tensor, nn

from qstudy.quant.quantizers.base import TINY

RATE = 4.0
"""How fast a magnitude's logarithm moves, next to a weight: at a learning rate of 0.001 by up to 0.4 % per step."""


class Magnitude(nn.Module):
    """A positive trained tensor, as what it started from and the logarithm of what became of it since.

    Adam divides a gradient by its own size, so that each step of a parameter is about as large as the learning rate,
    and LSQ's factor (Esser et al. 2020, arXiv 1902.08153, section 2.2), which is to make scales move as weights do,
    cancels out: a scale of 0.001 then moves by its own size in one step, a clip of 5 hardly at all. A logarithm moves
    both by the same share, and weight decay pulls both back to their start, not to zero.
    """

    start: Tensor
    growth: nn.Parameter
    """Logarithm of magnitude / start, divided by `RATE`."""

    def __init__(self, *size: int) -> None:
        """Args: its shape; all are 1 until `set`."""
        super().__init__()
        self.register_buffer("start", torch.ones(size))
        self.growth = nn.Parameter(torch.zeros(size))

    def forward(self) -> Tensor:
        """The magnitude, float32, above zero; its logarithm's gradient is the growth's, without `RATE`."""
        faster = self.growth + (RATE - 1) * self.growth.detach()  # Adam's step is no larger for a larger gradient, and
        return (self.start * faster.exp()).clamp_min(TINY)  # in the norm that is clipped RATE would shorten the others

    @torch.no_grad()
    def set(self, value: Tensor | float) -> None:
        """Let it start from this, above zero."""
        self.start.copy_(torch.as_tensor(value))
        self.growth.zero_()
