"""Softmax as a fixed-point accelerator computes it: a table of exponentials, one sum, one division per value."""

from typing import Any

import torch
from torch import Tensor

from qstudy.quant.fixed_point.lookup import OFFSET, responses
from qstudy.quant.fixed_point.operators import UNIT, FixedPoint, divide, saturate, to_fixed, to_float


@torch.no_grad()
def fixed_point_probabilities(x: Tensor, spec: FixedPoint) -> Tensor:
    """Softmax over the last dimension of x (..., N) float: (..., N) float32 that are exactly Q0.15.

    What x lies below its largest is rounded to the gates' format, so that large scores do not saturate alike; minus
    infinity has the probability 0, also where nothing else is.
    """
    largest = x.amax(-1, keepdim=True).nan_to_num(neginf=0.0)
    below = to_fixed(x - largest, spec.gate_fraction).long()
    weights = responses(spec, x.device).exp[below + OFFSET].long() * (x > -torch.inf)
    total = weights.sum(-1, keepdim=True).clamp(min=1)
    return to_float(saturate(divide(weights << UNIT, total)), UNIT)


class _Softmax(torch.autograd.Function):
    """Integers forward; backward the gradient of the float softmax at these probabilities."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, spec: FixedPoint) -> Tensor:
        probabilities = fixed_point_probabilities(x, spec)
        ctx.save_for_backward(probabilities)
        return probabilities

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (probabilities,) = ctx.saved_tensors
        weighted = grads[0].float() * probabilities
        return weighted - probabilities * weighted.sum(-1, keepdim=True), None


def fixed_point_softmax(x: Tensor, spec: FixedPoint) -> Tensor:
    """`fixed_point_probabilities`, differentiable straight through."""
    return _Softmax.apply(x.float(), spec)
