"""What an accelerator does around the product of a linear layer: a tanh before it, requantization and bias after it.

Source: Shakiah et al. 2022, arXiv 2305.07778 (the operators); the formats are ours.
"""

import torch
from torch import Tensor

from qstudy.quant.fixed_point.lookup import OFFSET, responses
from qstudy.quant.fixed_point.operators import (
    UNIT,
    FixedPoint,
    requantization,
    requantize,
    saturate,
    to_fixed,
    to_float,
)
from qstudy.quant.integer.accumulator import rescale


@torch.no_grad()
def handed_over(
    accumulator: Tensor, input_scale: Tensor, scale: Tensor, bias: Tensor | None, spec: FixedPoint
) -> Tensor:
    """Accumulators as the next operator gets them: in 16 bits, or as floats where the formats have none for it.

    Args:
        accumulator: (..., H) int32.
        input_scale: of the codes that were multiplied, () float32.
        scale: of the weights, (H,) or (1,) float32.
        bias: (H,) float32 or None.
        spec: the accelerator's formats.

    Returns:
        (..., H) float32, exactly integers of 16 bits times 2**-linear_fraction.
    """
    if spec.linear_fraction is None:
        y = rescale(accumulator, input_scale, scale)
        return y if bias is None else y + bias
    words = requantization(scale.double() * input_scale.double() * 2.0**spec.linear_fraction)
    sums = requantize(accumulator, words, spec.rounding)
    if bias is not None:
        sums = saturate(sums + to_fixed(bias, spec.linear_fraction))
    return to_float(sums, spec.linear_fraction)


@torch.no_grad()
def fixed_point_tanh(x: Tensor, spec: FixedPoint) -> Tensor:
    """tanh of x (...) float, rounded to the gates' format, by the cells' table or segments: float32, exactly Q0.15."""
    return to_float(responses(spec, x.device).tanh[to_fixed(x, spec.gate_fraction).long() + OFFSET], UNIT)
