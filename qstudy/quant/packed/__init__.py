"""How the layers of a packed model run: by the name that the training arithmetic gives (`Arithmetic.packed`)."""

from qstudy.quant.packed.base import PackedArithmetic
from qstudy.quant.packed.fixed_point import PackedFixedPoint
from qstudy.quant.packed.grouped import PackedGroups
from qstudy.quant.packed.integer import PackedInteger

PACKED: dict[str, type[PackedArithmetic]] = {
    "integer": PackedInteger,
    "grouped": PackedGroups,
    "fixed_point": PackedFixedPoint,
}
