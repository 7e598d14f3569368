"""The integer arithmetic that training and the packed model share: codes, exact accumulators, rescaling."""

from typing import NamedTuple

import torch
from torch import Tensor

from qstudy.quant.grids import bounds, integer_type
from qstudy.quant.matmul import integer_matmul


class Grid(NamedTuple):
    """One activation grid as the device knows it."""

    step: Tensor
    """() float32."""
    zero_point: Tensor
    """() float32, a whole number."""
    bits: int

    def codes(self, x: Tensor) -> Tensor:
        """x (...) float32 to integers (...), int8 or int16; without a zero point the grid is symmetric."""
        low, high = bounds(self.bits, narrow=not bool(self.zero_point))
        return torch.round(x / self.step + self.zero_point).clamp_(low, high).to(integer_type(self.bits))


def accumulate(x: Tensor, zero_point: Tensor, weight: Tensor) -> Tensor:
    """The accumulators of a product: sum over D of (x - zero_point) * weight, exactly.

    Args:
        x: codes (..., D) int8 or int16.
        zero_point: () float32, a whole number.
        weight: (H, D) int8 or int16.

    Returns:
        (..., H) int32 for int8 operands, else float64 that holds whole numbers.
    """
    accumulator = integer_matmul(x, weight)
    if zero_point:
        accumulator = accumulator - zero_point.to(accumulator.dtype) * weight.sum(1, dtype=accumulator.dtype)
    return accumulator


def rescale(accumulator: Tensor, step: Tensor, scale: Tensor) -> Tensor:
    """Accumulators (..., H) to float32, by the input's step () and the weights' scale (H,) or (1,)."""
    return (accumulator * (step * scale)).float()
