"""Uniform quantizers of weights: equally spaced levels around zero."""

from typing import Literal

import torch
from torch import Tensor

from qstudy.quant.quantizers.base import TINY, QuantizedMatrix, WeightQuantizer, bounds, integer_type
from qstudy.quant.quantizers.blocks import columns_per_scale, from_blocks, to_blocks
from qstudy.quant.quantizers.magnitude import Magnitude
from qstudy.quant.rounding import largest, quantize_symmetric
from qstudy.quant.straight_through import fake_quantize, learned_step_size

WeightRange = Literal["max", "percentile", "mse", "learned"]

MOST_SORTED = 2**24  # values of which torch.quantile takes a quantile at once
CLIP_RATIOS = 41  # candidates of the MSE search, from 0.2 to 1.0 of the maximum


class UniformWeights(WeightQuantizer):
    """Equally spaced levels around zero, one scale per row (output channel), group of a row's columns, or matrix.

    Ranges: `max`: the largest magnitude is the last level (Ding et al. 2022, arXiv 2203.15952); `percentile`: clipped
    above so many percent of the magnitudes that share a scale; `mse`: clipped where the squared error is least;
    `learned`: the scale is trained from there (LSQ, Esser et al. 2020, arXiv 1902.08153). The first three follow the
    weights' maximum while they train.
    """

    ratio: Tensor

    def __init__(
        self,
        weight: Tensor,
        bits: int,
        granularity: str,
        range: WeightRange,
        narrow: bool = True,
        group: int = 64,
        percentile: float = 99.99,
    ) -> None:
        """
        Args:
            weight: the matrix (rows, columns).
            bits: width of the integers.
            granularity: `channel`, `tensor` or `group`: which weights share a scale.
            range: how its largest level is chosen.
            narrow: 2**bits - 1 levels, symmetric; else all 2**bits.
            group: columns of a group.
            percentile: percent of the magnitudes that are not clipped, where that is the range.
        """
        super().__init__()
        self.bits = bits
        self.low, self.high = bounds(bits, narrow)
        self.per_scale = columns_per_scale(granularity, group, weight.shape[1])
        self.range = range
        self.percentile = percentile
        scales = len(to_blocks(weight, self.per_scale))
        self.register_buffer("ratio", weight.new_ones(scales, 1))  # the largest level's share of the maximum
        if range == "learned":
            self.learned = Magnitude(scales, 1).to(weight.device)

    def scale(self, weight: Tensor) -> Tensor:
        """What one level is worth, one for each block of weights that share it, (scales, 1) float32."""
        if self.range == "learned":
            return self.learned()
        return _max_scale(to_blocks(weight, self.per_scale), self.high) * self.ratio

    def forward(self, weight: Tensor) -> Tensor:
        blocks, scale = to_blocks(weight, self.per_scale), self.scale(weight)
        if self.range == "learned":
            quantized = learned_step_size(blocks, scale, self.low, self.high)
        else:
            quantized = fake_quantize(blocks, scale, None, self.low, self.high)
        return from_blocks(quantized, weight.shape)

    @torch.no_grad()
    def quantize(self, weight: Tensor) -> QuantizedMatrix:
        scale = self.scale(weight)
        whole = quantize_symmetric(to_blocks(weight.detach(), self.per_scale), scale, self.low, self.high)
        return self._matrix(from_blocks(whole, weight.shape), scale)

    def _matrix(self, integers: Tensor, scale: Tensor) -> QuantizedMatrix:
        return QuantizedMatrix(integers.to(integer_type(self.bits)), self._by_rows(scale, len(integers)))

    def _by_rows(self, scale: Tensor, rows: int) -> Tensor:
        """Scales (scales, 1) as they are stored: (rows, groups), (rows, 1) or (1, 1) float32."""
        return scale.detach().float().reshape(1 if self.per_scale == 0 else rows, -1)

    @torch.no_grad()
    def calibrate(self, weight: Tensor) -> None:
        blocks = to_blocks(weight.detach(), self.per_scale)
        unclipped = _max_scale(blocks, self.high)
        if self.range == "percentile":
            real = to_blocks(torch.ones_like(weight), self.per_scale) > 0  # zeros fill up the last group of a row
            end = _quantile(blocks.abs().where(real, torch.nan), self.percentile / 100)
            ratio = (end / self.high / unclipped).clamp_min(TINY)
            self.ratio.copy_(torch.where(end > 0, ratio, 1))  # of a row of zeros, or nearly, nothing is clipped
        elif self.range != "max":
            self.ratio.copy_(best_ratio(blocks, unclipped, self.low, self.high))
        if self.range == "learned":
            self.learned.set(_usable(unclipped * self.ratio, unclipped, self.high))


def _max_scale(blocks: Tensor, high: int) -> Tensor:
    return (largest(blocks.detach()) / high).clamp_min_(TINY)


def _usable(scale: Tensor, unclipped: Tensor, high: int) -> Tensor:
    """Scales (scales, 1) to train from. Weights that are all zero get the mean of the others' scales, or that of a
    magnitude of 1: they would be clipped at zero for good."""
    zero = unclipped <= TINY
    others = scale[~zero]
    return torch.where(zero, others.mean() if len(others) else 1 / high, scale)


def _quantile(values: Tensor, share: float) -> Tensor:
    """What so large a share of each row is below (rows, 1), on a straight line between neighbours; NaNs do not count.
    Of a whole matrix that is too large for torch's, where none is NaN, by selection."""
    count = values.shape[1]
    if count <= MOST_SORTED:
        return torch.nanquantile(values, share, dim=1, keepdim=True)
    below = int(share * (count - 1))
    low, high = (values.kthvalue(min(place, count), dim=1, keepdim=True).values for place in (below + 1, below + 2))
    return torch.lerp(low, high, share * (count - 1) - below)


def best_ratio(blocks: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """Search which part of the scale (rows, 1) has the least squared error for each row of blocks, the largest of
    equal ones: (rows, 1)."""
    best, winner = torch.full_like(scale, torch.inf), torch.ones_like(scale)
    for ratio in torch.linspace(0.2, 1.0, CLIP_RATIOS, device=blocks.device):
        size = scale * ratio
        error = (torch.round(blocks / size).clamp(low, high) * size - blocks).square().sum(1, keepdim=True)
        winner = torch.where(error <= best, ratio, winner)
        best = torch.minimum(best, error)
    return winner
