"""How the layers of a packed model run: one class per arithmetic, which the header names (`ServedArithmetic.name`)."""

from qstudy.quant.serving.base import ServedArithmetic
from qstudy.quant.serving.fixed_point import FixedPointServed
from qstudy.quant.serving.grouped import GroupedServed
from qstudy.quant.serving.integer import IntegerServed
from qstudy.quant.serving.snapped import SnappedServed
from qstudy.quant.serving.weights_only import WeightsOnlyServed

__all__ = [
    "FixedPointServed",
    "GroupedServed",
    "IntegerServed",
    "ServedArithmetic",
    "SnappedServed",
    "WeightsOnlyServed",
]
