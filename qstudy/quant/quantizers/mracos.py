"""MRACos: the penalty that gathers weights at the centroids of their codebook."""

import math
from typing import Any

import torch
from torch import Tensor

from qstudy.quant.quantizers.codebook_kernels import mracos_sums


class _MRACos(torch.autograd.Function):
    """The gradient is found along with the value."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, table: Tensor, scale: Tensor) -> Tensor:
        total, slope = mracos_sums(weight.detach().float().contiguous(), scale.flatten()[0], table)
        ctx.save_for_backward(slope)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grads[0] * slope, None, None


def mracos(weight: Tensor, table: Tensor, scale: Tensor) -> Tensor:
    """Multi-regional absolute cosine, summed: zero at every centroid, one half-way between two.

    Between neighbours c_i <= w < c_(i+1) it is r(w) = |cos(pi * ((w - c_i) / (c_(i+1) - c_i) - 1/2))|. Outside the
    outermost centroids, where the paper's abstract is silent, it goes on along its tangent at them: such weights are
    pulled back with the steady force pi / width of the outermost region. At a centroid the gradient is zero.

    Args:
        weight: (rows, columns) float.
        table: the centroids over the scale (K,) int8, ascending, K >= 2.
        scale: one float32; no gradient.

    Returns:
        () float32, the sum of r over all weights.

    Source: Zhen et al. 2022, arXiv 2206.15408; with equal regions it is the older ACosR.
    """
    total: Tensor = _MRACos.apply(weight, table, scale)
    return total


def steepness(levels: Tensor) -> Tensor:
    """Root mean square of r's slope over the regions between levels (K,), a weight being anywhere in any: ()."""
    return math.pi * levels.diff().reciprocal().square().mean().div(2).sqrt()
