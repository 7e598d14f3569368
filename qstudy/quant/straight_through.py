"""Functions whose forward pass rounds and whose backward pass pretends that it did not."""

from typing import Any

import torch
from torch import Tensor


class _FakeQuantize(torch.autograd.Function):
    """Snap to a uniform grid; the gradient passes within the grid's range and is zero where x was clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        steps = torch.round(x / scale + zero_point)
        codes = steps.clamp(low, high)
        ctx.save_for_backward(codes == steps)
        return (codes - zero_point) * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None, None, None


class _LearnedStepSize(torch.autograd.Function):
    """As above, with a gradient for the scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        ratio = x / scale
        codes = torch.round(ratio).clamp(low, high)
        ctx.save_for_backward(ratio, codes, scale)
        ctx.bounds = (low, high)
        return codes * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ratio, codes, scale = ctx.saved_tensors
        low, high = ctx.bounds
        inside = (ratio >= low) & (ratio <= high)
        slope = torch.where(inside, codes - ratio, codes)
        balance = (
            high * ratio.numel() / scale.numel()
        ) ** -0.5  # g = 1 / sqrt(N * Q_P): steps as large as the weights'
        grad_scale = (grads[0] * slope).sum_to_size(scale.shape) * balance
        return grads[0] * inside, grad_scale, None, None


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
    """Round x / scale + zero_point to integers in [low, high], and return the values that these integers stand for.

    Args:
        x: any shape, float.
        scale: the grid's step, broadcastable to x; no gradient.
        zero_point: the integer (as float) that stands for 0.0, broadcastable to x; no gradient.
        low: the least integer.
        high: the greatest integer.

    Source: straight-through estimator, Bengio, Leonard, Courville 2013, arXiv 1308.3432.
    """
    return _FakeQuantize.apply(x, scale, zero_point, low, high)


def learned_step_size(x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """Symmetric `fake_quantize` whose scale is trained.

    Inside the range the scale's gradient is round(x/s) - x/s, outside it is the bound, each times 1/sqrt(N * high),
    with N the number of values that share a scale.

    Source: LSQ, Esser et al. 2020, arXiv 1902.08153.
    """
    return _LearnedStepSize.apply(x, scale, low, high)


class _StraightThrough(torch.autograd.Function):
    """Forward the snapped values; backward pretend that they were x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, snapped: Tensor) -> Tensor:
        return snapped

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None


def straight_through(x: Tensor, snapped: Tensor) -> Tensor:
    """`snapped`, with a gradient that passes whole to x, of the same shape: nothing counts as clipped."""
    return _StraightThrough.apply(x, snapped)
