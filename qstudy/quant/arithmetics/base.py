"""What every arithmetic of training offers: how a layer computes, what the device gets of it, what runs it there."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from qstudy.quant.arithmetic import Arithmetic
from qstudy.quant.packed.base import PackedArithmetic


class TrainingArithmetic(Arithmetic):
    """How one layer computes while it trains. The layer owns its parameters and hands them over."""

    @property
    @abstractmethod
    def packed(self) -> type[PackedArithmetic]:
        """What runs the packed layer; the header names it. A class attribute will do: `packed = MyPacked`."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the packed layer must know beside its tensors, as JSON (`StoredLayer.settings`)."""
        return {}

    @abstractmethod
    def pack(self, matrices: Sequence[Tensor]) -> dict[str, Tensor]:
        """What the device gets instead of the float matrices: see `qstudy.quant.packed` for the names."""
