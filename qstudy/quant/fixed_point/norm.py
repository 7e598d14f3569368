"""Layer normalization as a fixed-point accelerator computes it: integer sums, an integer root, one division per value.

Source of the idea: Kim et al. 2021, "I-BERT", arXiv 2101.01321 (normalization in integers alone); the formats are ours.
"""

import torch
from torch import Tensor

from qstudy.quant.fixed_point.operators import FixedPoint, divide, saturate, shift_right, to_fixed, to_float

GUARD = 4  # bits that means and deviations have beyond those of the inputs
WEIGHT_FRACTION = 12  # of a normalization's weights: Q3.12 holds [-8, 8)


@torch.no_grad()
def fixed_point_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, spec: FixedPoint) -> Tensor:
    """Normalization of the last dimension of x (..., D) float, rounded to 16 bits with `norm_fraction` of them behind
    the point: (..., D) float32 that are exactly in the gates' format."""
    size, inner = x.shape[-1], spec.norm_fraction + GUARD
    codes = to_fixed(x, spec.norm_fraction).long() << GUARD
    centered = codes - divide(codes.sum(-1, keepdim=True), size)
    variance = divide(centered.square().sum(-1, keepdim=True), size) + round(eps * 4**inner)
    # below 2**50, so that a float64 holds the argument exactly, and its root's whole part is the integer root
    deviation = (variance << 2 * GUARD).double().sqrt().floor().long().clamp(min=1)
    normal = saturate(divide(centered << spec.gate_fraction + GUARD, deviation))
    scaled = shift_right(normal * to_fixed(weight, WEIGHT_FRACTION).long(), WEIGHT_FRACTION, spec.rounding)
    return to_float(saturate(scaled + to_fixed(bias, spec.gate_fraction)), spec.gate_fraction)
