"""What a packed file must hold for a layer: names, types and sizes of its tensors, from its shape and its widths."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qstudy.bits import FLOAT, LayerBits, LayerShape
from qstudy.errors import UserError
from qstudy.quant.integer.accumulator import QParams
from qstudy.quant.packed.bitpack import packed_bytes, unpack


class Stored(NamedTuple):
    """One tensor of a file."""

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
        return [QParams(scale, zero_point, self.bits.activation) for scale, zero_point in pairs]


LARGEST = 1e30
"""Of any stored number; beyond, products in float32 end in infinity."""
Layout = dict[str, Stored]
"""Name within the layer -> tensor."""


def layer_layout(shape: LayerShape, bits: LayerBits) -> Layout:
    """The tensors of a layer: integers, scales and tables of its matrices, or their floats; quantizers; bias."""
    layout: Layout = {}
    for index, (rows, columns) in enumerate(shape.matrices):
        layout |= {f"{index}.{key}": stored for key, stored in _matrix(rows, columns, bits).items()}
    if shape.activations and bits.activation != FLOAT:
        layout["activation"] = Stored(torch.float32, (shape.activations, 2))
    if shape.vectors:
        layout["bias"] = Stored(torch.float32, (shape.vectors,))
    return layout


def _matrix(rows: int, columns: int, bits: LayerBits) -> Layout:
    if bits.weight == FLOAT:
        return {"float": Stored(torch.float32, (rows, columns))}
    codes = {"codes": Stored(torch.uint8, (packed_bytes(rows * columns, bits.weight),))}
    if bits.quantizer == "codebook":
        table = Stored(torch.int8, (2**bits.weight,))
        return {**codes, "scale": Stored(torch.float32, (1,)), "table": table}
    per_row = -(-columns // bits.columns_per_scale) if bits.columns_per_scale else 0
    return {**codes, "scale": Stored(torch.float32, (rows * per_row or 1,))}


def compare(layer: str, own: Mapping[str, Tensor], layout: Layout) -> None:
    """Hold a layer's tensors against what they must be.

    Raises:
        UserError: one is missing, too many, or of another type or size, or holds what no training ends in.
    """
    require_tensors(layer, own, layout)
    require_bounded(layer, own)
    if "activation" in own and not _are_qparams(own["activation"]):
        raise UserError(
            f"{layer}.activation holds a scale that is not above 0, or a zero point that is no integer or "
            "of a hidden state"
        )


def require_tensors(layer: str, own: Mapping[str, Tensor], layout: Layout) -> None:
    """Raise UserError if a tensor is missing, too many, or of another type or size."""
    if missing := set(layout) - set(own):
        raise UserError(f"the tensor {layer}.{min(missing)} is missing")
    if extra := set(own) - set(layout):
        raise UserError(f"there is a tensor {layer}.{min(extra)}, of which its header knows nothing")
    for name, expected in layout.items():
        found = Stored(own[name].dtype, tuple(own[name].shape))
        if found != expected:
            raise UserError(f"{layer}.{name} is {found}, but must be {expected}")


def require_bounded(layer: str, own: Mapping[str, Tensor]) -> None:
    """Raise UserError if a float tensor holds what no training ends in."""
    for name, tensor in own.items():
        if tensor.is_floating_point() and not (tensor.abs() <= LARGEST).all():
            raise UserError(f"{layer}.{name} holds a number that is not finite, or above {LARGEST:.0e}")


def _are_qparams(constants: Tensor) -> bool:
    """Whether (quantizers, 2) are scales and zero points."""
    scale, zero_point = constants.unbind(1)
    whole = (zero_point == zero_point.round()) & (zero_point.abs() < 2**16)
    return bool((scale > 0).all() and whole.all() and (zero_point[1:] == 0).all())
