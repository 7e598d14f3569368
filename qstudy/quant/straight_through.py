"""Functions whose forward pass rounds and whose backward pass pretends that it did not."""

from typing import Any

import torch
from torch import Tensor

from qstudy.quant.rounding import learned_gradient, mask, nearest_levels


class _FakeQuantize(torch.autograd.Function):
    """Fake-quantize uniformly; the gradient passes within the range and is zero where x was clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor | None, low: int, high: int) -> Tensor:
        values, inside = nearest_levels(x, scale, zero_point, low, high)
        ctx.save_for_backward(inside)
        return values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return mask(grads[0], inside), None, None, None, None


class _LearnedStepSize(torch.autograd.Function):
    """As above, with a gradient for the scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.bounds = (low, high)
        return nearest_levels(x, scale, None, low, high)[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        low, high = ctx.bounds
        grad_x, grad_scale = learned_gradient(x, scale, low, high, grads[0])
        return grad_x, grad_scale * lsq_factor(x, scale, high), None, None


class _LearnedOffset(torch.autograd.Function):
    """As above, with a zero point that moves too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        whole = whole_zero_point(zero_point)
        ctx.save_for_backward(x, scale, whole)
        ctx.bounds = (low, high)
        return nearest_levels(x, scale, whole, low, high)[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, whole = ctx.saved_tensors
        low, high = ctx.bounds[0] - whole, ctx.bounds[1] - whole
        ratio = x / scale
        inside = (ratio > low) & (ratio < high)
        slope = torch.where(inside, ratio.round() - ratio, ratio.clamp(low, high))
        factor = lsq_factor(x, scale, ctx.bounds[1])
        grad_x = grads[0] * inside
        grad_zero = -scale * (grads[0] - grad_x).sum()
        return grad_x, (grads[0] * slope).sum() * factor, grad_zero * factor, None, None


def lsq_factor(x: Tensor, scale: Tensor, high: int) -> float:
    """LSQ's g = 1 / sqrt(N * Q_P), N values that share a scale: the scale's changes become as large as the weights'."""
    return float((high * max(x.numel(), 1) / scale.numel()) ** -0.5)


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor | None, low: int, high: int) -> Tensor:
    """Round x / scale + zero_point to integers in [low, high], and return the values that these integers stand for.

    The gradient passes where the integer was in [low, high] before clipping.

    Args:
        x: any shape, float.
        scale: broadcastable to x; no gradient.
        zero_point: the integer (as float) that stands for 0.0, broadcastable to x; no gradient; None: 0.
        low: the least integer.
        high: the greatest integer.

    Source: straight-through estimator, Bengio, Leonard, Courville 2013, arXiv 1308.3432.
    """
    return _FakeQuantize.apply(x, scale, zero_point, low, high)


def learned_step_size(x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """Symmetric `fake_quantize` whose scale is trained.

    With v = x / scale: where low < v < high the gradient passes to x, and the scale's is round(v) - v; elsewhere x gets
    none, and the scale's is the bound; the scale's gradients are summed and multiplied by 1 / sqrt(N * high), with N
    the number of values that share a scale.

    Source: LSQ, Esser et al. 2020, arXiv 1902.08153, equations 3 and 5, section 2.2.
    """
    return _LearnedStepSize.apply(x, scale, low, high)


def whole_zero_point(zero_point: Tensor) -> Tensor:
    """The integer nearest to a trained zero point (), but never 0, which would mean a symmetric quantizer."""
    whole = zero_point.detach().round()
    return torch.where(whole == 0, torch.where(zero_point > 0, 1.0, -1.0), whole)


def learned_offset(x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
    """`learned_step_size` with a trained zero point (), float: the quantizer uses `whole_zero_point`.

    The offset beta = -scale * zero_point has the gradient 0 inside and 1 where x was clipped, so that the zero point's
    is 0 and -scale; it is multiplied by the scale's factor.

    Source: LSQ+, Bhalgat et al. 2020, arXiv 2004.09576; there beta is any number, here a whole number of levels, so
    that 0.0 stays exact and the device adds integers.
    """
    return _LearnedOffset.apply(x, scale, zero_point, low, high)


class _StraightThrough(torch.autograd.Function):
    """Forward the fake-quantized values; backward pretend that they were x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, quantized: Tensor) -> Tensor:
        return quantized

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None


def straight_through(x: Tensor, quantized: Tensor) -> Tensor:
    """`quantized`, with a gradient that passes whole to x, of the same shape: nothing counts as clipped."""
    return _StraightThrough.apply(x, quantized)
