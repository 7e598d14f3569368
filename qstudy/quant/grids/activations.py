"""Uniform grids of activations: equal steps, one scale for the whole tensor."""

from typing import Literal

import torch
from torch import Tensor, nn

from qstudy.quant.grids.base import TINY, ActivationGrid, bounds
from qstudy.quant.straight_through import fake_quantize, learned_step_size

ActivationRange = Literal["ema", "learned"]


class UniformActivations(ActivationGrid):
    """Equal steps for one activation tensor, one scale for all of it.

    Ranges: `ema`: moving average of each batch's extremes; `learned`: the scale is trained from there (LSQ).
    """

    extremes: Tensor
    seen: Tensor

    def __init__(
        self, bits: int, symmetric: bool = True, range: ActivationRange = "ema", momentum: float = 0.95
    ) -> None:
        super().__init__()
        self.bits = bits
        self.symmetric = symmetric
        self.range = range
        self.momentum = momentum
        self.low, self.high = bounds(bits, narrow=symmetric)
        self.register_buffer("extremes", torch.zeros(2))  # least and greatest value seen
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))
        self.register_buffer("zero_point", torch.zeros(()))
        if range == "learned":
            self.scale = nn.Parameter(torch.ones(()))
            self.trained = True
        else:
            self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Snap x (any shape) to the grid."""
        if self.observing and self.training:
            self.observe(x)
        if not self.enabled:
            return x
        if self.range == "learned" and self.symmetric:
            return learned_step_size(x.float(), self.scale.abs().clamp_min(TINY), self.low, self.high)
        low = self.low if self.zero_point else -self.high  # without a zero point every grid is symmetric
        return fake_quantize(x.float(), self.scale.detach(), self.zero_point, low, self.high)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Move the range towards the extremes of x, and the scale with it."""
        now = torch.stack(torch.aminmax(x.detach().float()))
        self.extremes.copy_(torch.where(self.seen, torch.lerp(now, self.extremes, self.momentum), now))
        self.seen.fill_(True)
        symmetric = (self.extremes.abs().amax() / self.high).clamp_min(TINY)
        if self.symmetric:
            self.scale.copy_(symmetric)
            return
        low, high = self.extremes[0].clamp_max(0), self.extremes[1].clamp_min(0)  # zero stays exact
        scale = ((high - low) / (self.high - self.low)).clamp_min(TINY)
        self.zero_point.copy_((self.low - low / scale).round().clamp(self.low, self.high))
        self.scale.copy_(torch.where(self.zero_point == 0, symmetric, scale))  # see `forward`


class FixedActivations(UniformActivations):
    """A symmetric grid whose end is known: an LSTM's hidden state lies in (-1, 1); nothing to watch, nothing clips."""

    def __init__(self, bits: int, bound: float = 1.0) -> None:
        super().__init__(bits)
        self.scale.fill_(bound / self.high)

    def observe(self, x: Tensor) -> None:
        """Nothing to learn."""
