"""MRACos: the penalty that gathers weights at the centroids of their codebook."""

import math
from typing import Any

import torch
from torch import Tensor


class _MRACos(torch.autograd.Function):
    """Sum of r(w); the gradient is found along with the value, in one pass."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, levels: Tensor) -> Tensor:
        region = torch.bucketize(weight, levels, right=True).sub_(1).clamp_(0, len(levels) - 2)
        width = (levels[1:] - levels[:-1])[region]
        place = (weight.float() - levels[region]).div_(width)  # 0 and 1 at the centroids; outside below 0, above 1
        outside = torch.where(place < 0, -place, (place - 1).clamp_min_(0))
        angle = place.clamp(0, 1).mul_(math.pi)
        slope = torch.where(outside > 0, torch.sign(place), torch.cos(angle)).mul_(math.pi).div_(width)
        slope[(place == 0) | (place == 1)] = 0  # at a centroid: the middle of the kink
        ctx.save_for_backward(slope.to(weight.dtype))
        return torch.sin(angle).abs_().add_(outside, alpha=math.pi).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grads[0] * slope, None


def mracos(weight: Tensor, levels: Tensor) -> Tensor:
    """Multi-regional absolute cosine, summed: zero at every centroid, one half-way between two.

    Between neighbours c_i <= w < c_(i+1) it is r(w) = |cos(pi * ((w - c_i) / (c_(i+1) - c_i) - 1/2))|. Outside the
    outermost centroids, where the paper's abstract is silent, it goes on along its tangent at them: such weights are
    pulled back with the steady force pi / width of the outermost region. At a centroid the gradient is zero.

    Args:
        weight: any shape, float.
        levels: the centroids (K,) float32, ascending, K >= 2, no gradient.

    Returns:
        () float32, the sum of r over all weights.

    Source: Zhen et al. 2022, arXiv 2206.15408; with equal regions it is the older ACosR.
    """
    total: Tensor = _MRACos.apply(weight, levels)
    return total
