"""Uniform grids of weights: equal steps around zero."""

from typing import Literal

import torch
from torch import Tensor, nn

from qstudy.quant.grids.base import TINY, Codes, WeightGrid, bounds, integer_type
from qstudy.quant.straight_through import fake_quantize, learned_step_size

WeightRange = Literal["max", "mse", "learned"]

CLIP_RATIOS = 41  # candidates of the MSE search, from 0.2 to 1.0 of the maximum


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
        return Codes(integers.to(integer_type(self.bits)), scale.detach().float())

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
