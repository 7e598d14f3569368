"""What a packed file must hold for a layer, and what every packed arithmetic offers, by which that layer runs."""

import inspect
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor

from qstudy.bits import FLOAT, LayerBits, LayerShape
from qstudy.errors import UserError
from qstudy.named import find
from qstudy.quant.arithmetic import Arithmetic
from qstudy.quant.integer.accumulator import QParams
from qstudy.quant.packed.bitpack import packed_bytes, unpack
from qstudy.quant.state import LARGEST, full_name, is_bounded


class TensorType(NamedTuple):
    """What one tensor of a file is."""

    dtype: torch.dtype
    size: tuple[int, ...]

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} {list(self.size)}"


class StoredLayer(NamedTuple):
    """One layer as it lies in a packed file."""

    shape: LayerShape
    bits: LayerBits
    tensors: Mapping[str, Tensor]
    """By their names within the layer."""
    settings: Mapping[str, Any] = {}
    """What `TrainingArithmetic.settings` put into the header; anyone may have written it."""

    def integers(self, index: int) -> Tensor:
        """The numbers that the layer multiplies, (rows, columns) int8 (int16 above 8 bits); a codebook is looked up."""
        codes = unpack(self.tensors[f"{index}.codes"], self.bits.weight, self.shape.matrices[index])
        table = self.tensors.get(f"{index}.table")
        return codes if table is None else table[codes.int() & 2**self.bits.weight - 1]  # indices have no sign

    def qparams(self) -> list[QParams]:
        """Of the inputs and, for an LSTM, of the hidden state; none where activations are float."""
        pairs = self.tensors.get("activation", torch.empty(0, 2))
        return [QParams.read(scale, zero_point, self.bits.activation) for scale, zero_point in pairs]


Layout = dict[str, TensorType]
"""Name within the layer -> tensor."""


def layer_layout(shape: LayerShape, bits: LayerBits) -> Layout:
    """The tensors of a layer: integers, scales and tables of its matrices, or their floats; quantizers; bias."""
    layout: Layout = {}
    for index, (rows, columns) in enumerate(shape.matrices):
        layout |= {f"{index}.{key}": stored for key, stored in _matrix(rows, columns, bits).items()}
    if shape.activations and bits.activation != FLOAT:
        layout["activation"] = TensorType(torch.float32, (shape.activations, 2))
    if shape.vectors:
        layout["bias"] = TensorType(torch.float32, (shape.vectors,))
    return layout


def _matrix(rows: int, columns: int, bits: LayerBits) -> Layout:
    if bits.weight == FLOAT:
        return {"float": TensorType(torch.float32, (rows, columns))}
    codes = {"codes": TensorType(torch.uint8, (packed_bytes(rows * columns, bits.weight),))}
    if bits.quantizer == "codebook":
        table = TensorType(torch.int8, (2**bits.weight,))
        return {**codes, "scale": TensorType(torch.float32, (1,)), "table": table}
    per_row = -(-columns // bits.columns_per_scale) if bits.columns_per_scale else 0
    return {**codes, "scale": TensorType(torch.float32, (rows * per_row or 1,))}


def compare(shape: LayerShape, own: Mapping[str, Tensor], layout: Layout) -> None:
    """Hold a layer's tensors against what they must be.

    Raises:
        UserError: one is missing, too many, or of another type or size, or holds what no training ends in.
    """
    require_tensors(shape.name, own, layout)
    require_bounded(shape.name, own)
    if "activation" in own and not _are_qparams(own["activation"], shape.kind):
        raise UserError(
            f"{shape.name}.activation holds a scale that is not above 0, or a zero point that is not an integer or "
            "of a hidden state"
        )


def require_tensors(layer: str, own: Mapping[str, Tensor], layout: Layout) -> None:
    """Raise UserError if a tensor is missing, too many, or of another type or size."""
    if missing := set(layout) - set(own):
        raise UserError(f"the tensor {full_name(layer, min(missing))} is missing")
    if extra := set(own) - set(layout):
        raise UserError(f"there is a tensor {full_name(layer, min(extra))}, which its header does not mention")
    for name, expected in layout.items():
        found = TensorType(own[name].dtype, tuple(own[name].shape))
        if found != expected:
            raise UserError(f"{full_name(layer, name)} is {found}, but must be {expected}")


def require_bounded(layer: str, own: Mapping[str, Tensor]) -> None:
    """Raise UserError if a float tensor holds what no training ends in."""
    for name, tensor in own.items():
        if not is_bounded(tensor):
            raise UserError(f"{full_name(layer, name)} holds a number that is not finite, or above {LARGEST:.0e}")


def _are_qparams(pairs: Tensor, kind: str) -> bool:
    """Whether (quantizers, 2) are scales and zero points; an LSTM's hidden state has none."""
    scale, zero_point = pairs.unbind(1)
    whole = (zero_point == zero_point.round()) & (zero_point.abs() < 2**16)
    symmetric = kind != "lstm" or (zero_point[1:] == 0).all()
    return bool((scale > 0).all() and whole.all() and symmetric)


class PackedArithmetic(Arithmetic):
    """One layer of a packed model; it owns integers, the layer only a bias.

    Deriving from it is all the registration there is: a packed model's header calls the class by `name`, which for a
    class of your own is its import path.
    """

    name: ClassVar[str]
    known: ClassVar[dict[str, type["PackedArithmetic"]]] = {}
    """All classes that this process has defined, by name. A model file can ask for these, and for those of the file
    that `--trust` names."""

    def __init_subclass__(cls, name: str = "") -> None:
        """
        Raises:
            TypeError: another module's class has this name, and model files mean that one.
        """
        super().__init_subclass__()
        cls.name = name or f"{cls.__module__}.{cls.__qualname__}"
        if PackedArithmetic.known.get(cls.name, cls).__module__ != cls.__module__:
            raise TypeError(f"{cls.name!r} is the name of another packed arithmetic; leave `name` out.")
        PackedArithmetic.known[cls.name] = cls

    @abstractmethod
    def __init__(self, layer: StoredLayer) -> None:
        """Args: what the packed file holds for the layer; `check` has seen it."""
        super().__init__()

    @classmethod
    def takes(cls, shape: LayerShape, bits: LayerBits) -> bool:
        """Whether it runs such a layer in such widths; here: integer weights without groups, and no float activations.

        Any model file can name the class for any layer; what is refused here, no other method has to expect.
        """
        integers = bits.weight != FLOAT and not (shape.activations and bits.activation == FLOAT)
        fits = all(bits.fits(columns) for _, columns in shape.matrices)
        return integers and fits and bits.granularity != "group"

    @classmethod
    def require_taken(cls, shape: LayerShape, bits: LayerBits) -> None:
        """Raise UserError if it does not run such a layer in such widths."""
        if not cls.takes(shape, bits):
            raise UserError(
                f"bit_map.{shape.name}: the arithmetic `{cls.name}` does not take {shape.kind} layers with weights of "
                f"{bits.weight} bits by {bits.granularity} ({bits.quantizer}) and activations of {bits.activation}"
            )

    @classmethod
    def layout(cls, shape: LayerShape, bits: LayerBits) -> Layout:
        """What the file must hold for the layer."""
        return layer_layout(shape, bits)

    @classmethod
    def check(cls, layer: StoredLayer) -> None:
        """Refuse a file that does not hold for this layer what the constructor takes, and nothing else.

        Raises:
            UserError: a tensor is missing, too many or another than it must be, or the arithmetic has no such widths.
        """
        cls.require_taken(layer.shape, layer.bits)
        compare(layer.shape, layer.tensors, cls.layout(layer.shape, layer.bits))

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
