"""How the layers of a packed model run: by the name that the training arithmetic gives (`Arithmetic.served`)."""

from qstudy.quant.serving.base import ServedArithmetic
from qstudy.quant.serving.fixed_point import FixedPointServed
from qstudy.quant.serving.grouped import GroupedServed
from qstudy.quant.serving.integer import IntegerServed

SERVED: dict[str, type[ServedArithmetic]] = {
    "integer": IntegerServed,
    "grouped": GroupedServed,
    "fixed_point": FixedPointServed,
}
