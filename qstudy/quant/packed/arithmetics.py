"""How the layers of a packed model run: one class per arithmetic, which the header names (`PackedArithmetic.name`)."""

from qstudy.quant.packed.by_row import PackedByRow
from qstudy.quant.packed.fixed_point import PackedFixedPoint
from qstudy.quant.packed.integer import PackedInteger
from qstudy.quant.packed.layer import PackedArithmetic
from qstudy.quant.packed.product import PackedProduct
from qstudy.quant.packed.scaled import PackedFake, PackedGroups
from qstudy.quant.packed.weights_only import PackedWeightsOnly

__all__ = [
    "PackedArithmetic",
    "PackedByRow",
    "PackedFake",
    "PackedFixedPoint",
    "PackedGroups",
    "PackedInteger",
    "PackedProduct",
    "PackedWeightsOnly",
]
