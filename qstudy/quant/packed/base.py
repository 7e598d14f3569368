"""What every packed arithmetic offers: the layer of a packed model runs by it."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from qstudy.bits import LayerBits, LayerShape
from qstudy.quant.arithmetic import Arithmetic
from qstudy.quant.packed.layout import compare, layer_layout


class PackedArithmetic(Arithmetic):
    """One layer of a packed model; it owns integers, the layer only a bias."""

    @classmethod
    def check(cls, tensors: Mapping[str, Tensor], shape: LayerShape, bits: LayerBits) -> None:
        """Refuse a file that does not hold for this layer what `unpack` takes, and nothing else.

        Raises:
            UserError: a tensor is missing, too many or another than it must be, or the arithmetic has no such widths.
        """
        compare(shape.name, tensors, layer_layout(shape, bits))

    @classmethod
    @abstractmethod
    def unpack(cls, tensors: Mapping[str, Tensor], shape: LayerShape, bits: LayerBits) -> "PackedArithmetic":
        """Make it from the layer's tensors in the packed file, by their names without the layer's."""

    @abstractmethod
    def float_matrices(self, matrices: list[Tensor]) -> list[Tensor]:
        """The weights that the file's integers stand for, (rows, columns) float32 each; the layer itself has none."""

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Take what the training arithmetic's `settings` put into the header; most have nothing to say."""

    def pack(self, matrices: Sequence[Tensor]) -> dict[str, Tensor]:
        raise NotImplementedError("a packed model is not packed again")
