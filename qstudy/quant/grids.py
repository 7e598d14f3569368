"""Uniform number grids: which levels a tensor may take, and how their step is found."""

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from qstudy.quant.straight_through import fake_quantize, learned_step_size

WeightRange = Literal["max", "mse", "learned"]
ActivationRange = Literal["ema", "learned"]

TINY = 1e-8  # a scale is never zero: an all-zero row keeps a grid
CLIP_RATIOS = 41  # candidates of the MSE search, from 0.2 to 1.0 of the maximum


class Codes(NamedTuple):
    """A quantized matrix: values = codes * scale."""

    integers: Tensor
    """(rows, columns) int8, or int16 for 16 bits."""
    scale: Tensor
    """(rows, 1) or (1, 1) float32."""


def bounds(bits: int, narrow: bool = True) -> tuple[int, int]:
    """Least and greatest integer of a signed grid: 2**bits - 1 levels, symmetric (narrow), or all 2**bits."""
    high = 2 ** (bits - 1) - 1
    return (-high if narrow else -high - 1), high


class WeightGrid(nn.Module, ABC):
    """Levels for one weight matrix."""

    bits: int

    @abstractmethod
    def forward(self, weight: Tensor) -> Tensor:
        """Snap weight (rows, columns) to the grid; gradients pass straight through."""

    @abstractmethod
    def codes(self, weight: Tensor) -> Codes:
        """The integers that stand for `forward`'s values."""

    def calibrate(self, weight: Tensor) -> None:
        """Fit the grid to the trained weight, once, before fine-tuning or packing."""


class UniformWeights(WeightGrid):
    """Equal steps around zero, one scale per row (output channel) or per matrix.

    Ranges: `max`: the largest magnitude is the last level (Ding et al. 2022, arXiv 2203.15952); `mse`: clipped where
    the squared error is least; `learned`: the scale is trained from there (LSQ, Esser et al. 2020, arXiv 1902.08153).
    """

    ratio: Tensor
    zero: Tensor
    learned: nn.Parameter

    def __init__(self, weight: Tensor, bits: int, granularity: str, range: WeightRange, narrow: bool = True) -> None:
        super().__init__()
        self.bits = bits
        self.low, self.high = bounds(bits, narrow)
        self.per_row = granularity == "channel"
        self.range = range
        rows = weight.shape[0] if self.per_row else 1
        self.register_buffer("ratio", weight.new_ones(rows, 1))  # of the maximum, where the grid ends
        self.register_buffer("zero", weight.new_zeros(()), persistent=False)
        if range == "learned":
            self.learned = nn.Parameter(weight.new_ones(rows, 1))

    def scale(self, weight: Tensor) -> Tensor:
        """The step between levels, (rows, 1) or (1, 1) float32."""
        if self.range == "learned":
            return self.learned.abs().clamp_min(TINY)
        return self._max_scale(weight) * self.ratio

    def forward(self, weight: Tensor) -> Tensor:
        if self.range == "learned":
            return learned_step_size(weight, self.scale(weight), self.low, self.high)
        return fake_quantize(weight, self.scale(weight), self.zero, self.low, self.high)

    @torch.no_grad()
    def codes(self, weight: Tensor) -> Codes:
        scale = self.scale(weight)
        integers = torch.round(weight / scale + self.zero).clamp(self.low, self.high)
        return Codes(integers.to(torch.int8 if self.bits <= 8 else torch.int16), scale.detach().float())

    @torch.no_grad()
    def calibrate(self, weight: Tensor) -> None:
        if self.range != "max":
            self.ratio.copy_(self._best_ratio(weight))
        if self.range == "learned":
            self.learned.copy_(self._max_scale(weight) * self.ratio)

    def _max_scale(self, weight: Tensor) -> Tensor:
        magnitude = weight.detach().abs()
        largest = magnitude.amax(1, keepdim=True) if self.per_row else magnitude.amax().view(1, 1)
        return (largest / self.high).clamp_min(TINY)

    def _best_ratio(self, weight: Tensor) -> Tensor:
        """Search the clipping ratio with the least squared error, per row or per matrix."""
        unclipped = self._max_scale(weight)
        best = torch.full_like(self.ratio, torch.inf)
        winner = torch.ones_like(self.ratio)
        for ratio in torch.linspace(0.2, 1.0, CLIP_RATIOS, device=weight.device):
            scale = unclipped * ratio
            error = (torch.round(weight / scale).clamp(self.low, self.high) * scale - weight).square()
            error = error.sum(1, keepdim=True) if self.per_row else error.sum().view(1, 1)
            winner = torch.where(error < best, ratio, winner)
            best = torch.minimum(best, error)
        return winner


class UniformActivations(nn.Module):
    """Equal steps for one activation tensor, one scale for all of it.

    It watches (`observing`) and snaps (`enabled`) independently, so that a policy can first learn ranges, then
    quantize, then freeze. Ranges: `ema`: moving average of each batch's extremes; `learned`: the scale is trained from
    there (LSQ).
    """

    scale: Tensor
    zero_point: Tensor
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
        self.observing = False
        self.enabled = True
        self.register_buffer("extremes", torch.zeros(2))  # least and greatest value seen
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))
        self.register_buffer("zero_point", torch.zeros(()))
        if range == "learned":
            self.scale = nn.Parameter(torch.ones(()))
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

    def constants(self) -> Tensor:
        """Scale and zero point, (2,) float32: what a packed model stores."""
        return torch.stack([self.scale.detach().abs().clamp_min(TINY), self.zero_point]).float()


class FixedActivations(UniformActivations):
    """A symmetric grid whose end is known: an LSTM's hidden state lies in (-1, 1); nothing to watch, nothing clips."""

    def __init__(self, bits: int, bound: float = 1.0) -> None:
        super().__init__(bits)
        self.scale.fill_(bound / self.high)

    def observe(self, x: Tensor) -> None:
        """Nothing to learn."""
