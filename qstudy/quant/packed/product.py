"""Packed products of activations: what runs a layer that stores nothing but the quantizers of its two operands."""

from torch import Tensor

from qstudy.bits import FLOAT, LayerBits, LayerShape
from qstudy.quant.integer.whole_numbers import integer_product
from qstudy.quant.packed.layer import PackedArithmetic, StoredLayer


class PackedProduct(PackedArithmetic, name="product"):
    """A product of two activations in integers: exact, the same as in native training."""

    def __init__(self, layer: StoredLayer) -> None:
        super().__init__(layer)
        self.qparams = layer.qparams()

    @classmethod
    def takes(cls, shape: LayerShape, bits: LayerBits) -> bool:
        return shape.kind == "matmul" and bits.activation != FLOAT

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        return integer_product(x, y, *self.qparams)

    def float_matrices(self, matrices: list[Tensor]) -> list[Tensor]:
        return []
