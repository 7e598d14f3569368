"""What every packed arithmetic offers: the layer of a packed model runs by it."""

import inspect
from abc import abstractmethod
from typing import ClassVar, cast

from torch import Tensor

from qstudy.errors import UserError
from qstudy.named import find
from qstudy.quant.arithmetic import Arithmetic
from qstudy.quant.packed.layout import StoredLayer, compare, layer_layout


class PackedArithmetic(Arithmetic):
    """One layer of a packed model; it owns integers, the layer only a bias.

    Deriving from it is all the registration there is: a packed model's header calls the class by `name`, which for a
    class of your own is its import path.
    """

    name: ClassVar[str]
    known: ClassVar[dict[str, type["PackedArithmetic"]]] = {}
    """All classes that this process has defined, by name; a model file can ask for no other."""

    def __init_subclass__(cls, name: str = "") -> None:
        super().__init_subclass__()
        cls.name = name or f"{cls.__module__}.{cls.__qualname__}"
        PackedArithmetic.known[cls.name] = cls

    @abstractmethod
    def __init__(self, layer: StoredLayer) -> None:
        """Args: what the packed file holds for the layer; `check` has seen it."""
        super().__init__()

    @classmethod
    def check(cls, layer: StoredLayer) -> None:
        """Refuse a file that does not hold for this layer what the constructor takes, and nothing else.

        Raises:
            UserError: a tensor is missing, too many or another than it must be, or the arithmetic has no such widths.
        """
        compare(layer.shape.name, layer.tensors, layer_layout(layer.shape, layer.bits))

    @abstractmethod
    def float_matrices(self, matrices: list[Tensor]) -> list[Tensor]:
        """The weights that the file's integers stand for, (rows, columns) float32 each; the layer itself has none."""


def find_packed(name: str, what: str) -> type[PackedArithmetic]:
    """The class of this name: one that is known, or one in a file of the user's (`qstudy.named`).

    Args:
        name: as the header of a packed model says it.
        what: the field, for error messages.

    Raises:
        UserError: there is none, or only the model file asks for it.
    """
    found = cast(type[PackedArithmetic], find(name, PackedArithmetic.known, what, PackedArithmetic))
    if inspect.isabstract(found):
        raise UserError(f"{what}: {name!r} runs no layer; it is what other arithmetics derive from.")
    return found
