"""Sigmoid, tanh and the exponential of 16-bit fixed-point numbers, from a small table or from straight segments.

A function of 16 bits has 65536 results: both kinds are computed once for all of them, in the integers that the
accelerator computes in, and looked up from then on. What the device stores is the small table or the segments.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from qstudy.quant.fixed_point.operators import UNIT, FixedPoint, divide, saturate, shift_right

LOG2_E = 47274  # 1 / ln 2 in Q1.15
OFFSET = 2**15
"""Index of the result for 0 in a response."""

CPU = torch.device("cpu")
SEGMENTS = ((0.0, 2, 0.5), (1.0, 3, 0.625), (2.375, 5, 0.84375), (5.0, None, 1.0))
"""Bounds, slopes and heights: from a bound on, sigmoid(|x|) = |x| / 2**slope + height (PLAN: Amin, Curtis, Hayes-Gill
1997, "Piecewise linear approximation applied to nonlinear function of a neural network")."""


class Responses(NamedTuple):
    """Results in Q0.15 for every int16, in order from -32768 on; (65536,) int16 each."""

    sigmoid: Tensor
    tanh: Tensor
    exp: Tensor
    """Of what is at most 0, as a softmax needs it; 1 above."""


@cache
def responses(spec: FixedPoint, device: torch.device = CPU) -> Responses:
    """The functions as the accelerator of `spec` computes them, on a device of torch's."""
    x = torch.arange(-OFFSET, OFFSET)
    if spec.nonlinearity == "table":
        sigmoid, tanh, exp = (_interpolated(x, table(name, spec).long(), spec) for name in Responses._fields)
    else:
        sigmoid, exp = _segments(x, spec), _powers(x, spec)
        tanh = 2 * _segments(2 * x, spec) - 2**UNIT  # tanh(x) = 2 sigmoid(2 x) - 1
    return Responses(*(saturate(each).to(torch.int16).to(device) for each in (sigmoid, tanh, exp)))


def table(name: str, spec: FixedPoint) -> Tensor:
    """What the device stores for the function `sigmoid`, `tanh` or `exp`: (entries + 1,) int16, Q0.15.

    Values at equal distances over the range of a gate; the last one is the right end of the last interval.
    """
    places = torch.arange(spec.entries + 1, dtype=torch.float64) * (2 * OFFSET // spec.entries) - OFFSET
    values: Tensor = getattr(torch, name)(places * 2.0**-spec.gate_fraction)
    return saturate((values * 2.0**UNIT).round().long()).to(torch.int16)


def _interpolated(x: Tensor, entries: Tensor, spec: FixedPoint) -> Tensor:
    """Results for x (N,) int64: the low bits of x say where between two entries (K + 1,) int64 it lies."""
    low_bits = (2 * OFFSET // spec.entries).bit_length() - 1
    index, rest = (x + OFFSET) >> low_bits, (x + OFFSET) & ((1 << low_bits) - 1)
    left, right = entries[index], entries[index + 1]
    return left + shift_right((right - left) * rest, low_bits, spec.rounding)


def _segments(x: Tensor, spec: FixedPoint) -> Tensor:
    """Sigmoid of x (N,) int64 in Q0.15, from 0 to 2**15, by segments whose slopes are shifts."""
    magnitude = x.abs() << (UNIT - spec.gate_fraction)
    y = torch.zeros_like(x)
    for bound, slope, height in SEGMENTS:
        rise = 0 if slope is None else shift_right(magnitude, slope, spec.rounding)
        y = torch.where(magnitude >= int(bound * 2**UNIT), rise + int(height * 2**UNIT), y)
    return torch.where(x < 0, 2**UNIT - y, y)


def _powers(x: Tensor, spec: FixedPoint) -> Tensor:
    """exp(x) of x (N,) int64 in Q0.15: 2 to the power of x / ln 2, straight between whole powers; 1 above 0."""
    power = divide(-x.clamp(max=0) * LOG2_E, 1 << UNIT)  # in the gates' format
    whole, rest = power >> spec.gate_fraction, power & ((1 << spec.gate_fraction) - 1)
    return shift_right(2**UNIT - shift_right(rest << UNIT, spec.gate_fraction + 1, spec.rounding), whole, spec.rounding)
