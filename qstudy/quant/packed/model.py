"""The packed model: what the device gets. Integers, scales, a JSON header: one safetensors file that runs as is."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qstudy.bits import BitMap, LayerBits, LayerShape
from qstudy.errors import UserError, naming
from qstudy.fields import checked
from qstudy.named import asked_by
from qstudy.quant.arithmetic import TrainingArithmetic
from qstudy.quant.layers import Quantizable, quantizable, training_slots
from qstudy.quant.packed import file as packed_file
from qstudy.quant.packed.arithmetics import PackedArithmetic  # all are known by their names then
from qstudy.quant.packed.bitpack import pack
from qstudy.quant.packed.integer import fuse
from qstudy.quant.packed.layer import (
    StoredLayer,
    TensorType,
    compare,
    find_packed,
    layer_layout,
    require_bounded,
    require_tensors,
)
from qstudy.quant.state import LARGEST, free_buffers, full_name, is_bounded, layer_shapes, other_state


class PackedModel:
    """Tensors by name, and a header that says what they are.

    Names: `LAYER.I.codes` uint8 bit-packed integers of matrix I, `LAYER.I.scale` float32 per row or matrix,
    `LAYER.I.float` float32 of a matrix left in float, `LAYER.bias` float32, `LAYER.activation` float32 (quantizers, 2)
    scale and zero point of the inputs (and of the hidden state); every other name is that of a parameter or buffer
    in no quantizable layer, kept in its own type.

    Attributes:
        tensors: by name.
        header: JSON; `shapes`, `bit_map`, `arithmetic`, `settings`, and what else the device must know.
        shapes: the model's layers.
        bit_map: every layer's widths.
        source: where it comes from, for error messages.
    """

    def __init__(
        self,
        tensors: dict[str, Tensor],
        header: Mapping[str, Any],
        shapes: Sequence[LayerShape],
        bit_map: BitMap,
        source: str = "The packed model",
    ) -> None:
        """Args: `header` without the layers, which `shapes` and `bit_map` tell."""
        self.tensors = tensors
        self.shapes = list(shapes)
        self.bit_map = dict(bit_map)
        self.header = {**packed_file.describe_layers(self.shapes, self.bit_map), **header}
        self.source = source

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors: the file less its header."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, atomically."""
        packed_file.write(Path(path), {name: tensor.numpy() for name, tensor in self.tensors.items()}, self.header)

    @classmethod
    def load(cls, path: str | Path) -> "PackedModel":
        """Read a packed model and check that it is whole.

        Raises:
            UserError: the file is missing, truncated, damaged, or not a packed model.
        """
        header, arrays, shapes, bit_map = packed_file.read(Path(path))
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return cls(tensors, header, shapes, bit_map, str(path))

    def arithmetic_of(self, name: str) -> type[PackedArithmetic] | None:
        """What runs a layer; None: it is in float.

        Raises:
            UserError: the header names none, or one that neither this process nor the user's trusted file has.
        """
        if not self.bit_map[name].quantized:
            return None
        with naming(self.source, "export it again."), asked_by(Path(self.source)):
            chosen = checked(dict[str, str], self.header.get("arithmetic", {}), "arithmetic")
            if name not in chosen:
                raise UserError(f"arithmetic.{name}: this field is missing")
            return find_packed(chosen[name], f"arithmetic.{name}")

    def stored(self) -> dict[str, StoredLayer]:
        """The quantizable layers by name, as they lie in the file."""
        with naming(self.source, "export it again."):
            settings = checked(dict[str, dict[str, Any]], self.header.get("settings", {}), "settings")
        layers = [shape for shape in self.shapes if shape.quantizable]
        own, _ = packed_file.by_layer(self.tensors, [layer.name for layer in layers])
        return {
            layer.name: StoredLayer(layer, self.bit_map[layer.name], own[layer.name], settings.get(layer.name, {}))
            for layer in layers
        }

    def check(self, model: nn.Module) -> None:
        """Hold every tensor against what this model takes; nothing is allocated.

        Args:
            model: freshly built, on any device, "meta" included.

        Raises:
            UserError: a layer or a tensor is missing, too many, or of another type or size than the model's and the
                widths say, or it holds a number that is not finite.
        """
        self.require_layers(layer_shapes(model), lambda shape: shape.stored)
        grouped, rest = packed_file.by_layer(self.tensors, [shape.name for shape in self.shapes])
        stored = self.stored()
        with naming(self.source, "export it again."):
            checked(dict[str, str], self.header.get("arithmetic", {}), "arithmetic")  # of a float model, too
            for shape in self.shapes:
                if arithmetic := shape.quantizable and self.arithmetic_of(shape.name):
                    arithmetic.check(stored[shape.name])
                elif shape.quantizable:
                    compare(shape, grouped[shape.name], layer_layout(shape, self.bit_map[shape.name]))
            for name, own in other_state(model).items():
                _check_constants(name, own, grouped[name])
            if rest:
                raise UserError(f"there are tensors of no layer, such as {min(rest)}")

    def require_layers(
        self, shapes: Sequence[LayerShape], part: Callable[[LayerShape], Any] = lambda shape: shape
    ) -> None:
        """Hold the file's layers against those of a model.

        Args:
            shapes: the model's.
            part: what must be the same of a layer; by default all. What neither stores anything nor has a slot (a cell)
                is there to be priced, and need not be in a file.

        Raises:
            UserError: one is missing, too many, of another size, or at another place.
        """
        held = {shape.name for shape in self.shapes}
        listed = [shape for shape in shapes if shape.kind != "lstm_cell" or shape.name in held]
        ours, theirs = ({shape.name: part(shape) for shape in each} for each in (listed, self.shapes))
        differing = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        if not differing and [shape.name for shape in listed] == [shape.name for shape in self.shapes]:
            return
        name = differing[0] if differing else self.shapes[0].name
        fault = "missing" if name not in theirs else "too much" if name not in ours else "of another size or place"
        raise UserError(
            f"{self.source} describes another model than the one that it holds: {name or 'its own state'} is {fault}; "
            "export it again."
        )


def _check_constants(name: str, expected: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    layout = {key: TensorType(each.dtype, tuple(each.shape)) for key, each in expected.items()}
    require_tensors(name, own, layout)
    require_bounded(name, {key: own[key] for key, each in expected.items() if isinstance(each, nn.Parameter)})


def pack_model(
    model: nn.Module, bit_map: BitMap, shapes: Sequence[LayerShape], header: Mapping[str, Any]
) -> PackedModel:
    """Gather what the device gets: every layer's integers, biases and quantizers, and all else that the model stores.

    Args:
        model: float model with filled slots.
        bit_map: every quantizable layer's widths.
        shapes: the model's layers, constants included.
        header: what else the device must know: features, tokenizer, model configuration, policy.

    Raises:
        UserError: a weight is not finite, or larger than a file may hold, the model stores what no packed file holds,
            an own class that would run a layer cannot be imported, or a layer packs other bytes than its widths say.
    """
    tensors: dict[str, Tensor] = {}
    layers = quantizable(model)
    arithmetics = training_slots(model)
    for name, layer in layers.items():
        _require_storable(name, {f"matrix {index}": matrix for index, matrix in enumerate(layer.matrices())})
        own = _pack_layer(layer, arithmetics[name], bit_map[name])
        tensors |= {f"{name}.{key}": value for key, value in own.items()}
    for name, own in other_state(model).items():
        tensors |= {full_name(name, key): value for key, value in own.items()}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    free = free_buffers(model)
    _require_storable("The packed model", {name: tensor for name, tensor in tensors.items() if name not in free})
    used = {name: arithmetic for name, arithmetic in arithmetics.items() if arithmetic}
    for name, arithmetic in used.items():
        _require_importable(name, arithmetic.packed)
    chosen = {
        "arithmetic": {name: arithmetic.packed.name for name, arithmetic in used.items()},
        "settings": {name: arithmetic.settings for name, arithmetic in used.items() if arithmetic.settings},
    }
    packed = PackedModel(tensors, {**chosen, **header}, shapes, bit_map)
    for name, stored in packed.stored().items():
        with naming("packing", "quantizers must follow the policy's widths, or the policy refuse them (`refuses`)."):
            if name in used and stored.bits.quantized:
                used[name].packed.check(stored)
    return packed


def _require_importable(name: str, packed: type[PackedArithmetic]) -> None:
    if packed.__module__ == "__main__" or "<locals>" in packed.__qualname__:
        raise UserError(
            f"{name}: its packed arithmetic {packed.__qualname__} cannot be imported where the model is loaded; put it "
            "at the top of a file of your own, such as my_arithmetic.py, and import it from there."
        )


def _require_storable(owner: str, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not is_bounded(tensor):
            raise UserError(
                f"{owner}: {name} holds a number that is not finite, or above {LARGEST:.0e}, so it cannot be packed; "
                "train with a lower rate, or keep what is not a weight (a mask) in a buffer."
            )


def _pack_layer(layer: Quantizable, arithmetic: TrainingArithmetic | None, bits: LayerBits) -> dict[str, Tensor]:
    matrices = layer.matrices()
    if arithmetic is None:
        tensors = {f"{index}.float": matrix for index, matrix in enumerate(matrices)}
    else:
        tensors = arithmetic.pack(matrices)
    for key in [key for key in tensors if key.endswith(".codes")]:
        tensors[key] = pack(tensors[key], bits.weight)
        tensors[key.replace("codes", "scale")] = tensors[key.replace("codes", "scale")].flatten()
    bias = layer.bias_vector()
    return tensors if bias is None else {**tensors, "bias": bias}


def fill_packed(model: nn.Module, packed: PackedModel) -> None:
    """Turn a freshly built float model into the packed one: its float matrices go, integers come.

    Raises:
        UserError: the packed model is not of these layers, or holds other tensors than they take.
    """
    layers = quantizable(model)
    packed.check(model)
    grouped, _ = packed_file.by_layer(packed.tensors, [shape.name for shape in packed.shapes])
    constants = {full_name(name, key): grouped[name][key] for name, own in other_state(model).items() for key in own}
    for name, stored in packed.stored().items():
        layer, own, kind = layers[name], stored.tensors, packed.arithmetic_of(name)
        if kind is None:
            layer.set_float([own[f"{i}.float"] for i in range(len(stored.shape.matrices))], own.get("bias"))
            continue
        layer.set_float([], own.get("bias"))
        layer.drop_matrices()
        with naming(packed.source, "export it again."):
            layer.arithmetic = kind(stored)
    model.load_state_dict(constants, strict=False)  # `check` was strict; modules refuse what they cannot run with
    fuse(model)


@torch.no_grad()
def fill_float(model: nn.Module, source: nn.Module) -> None:
    """Give a freshly built float model the weights of one with filled slots, packed or not: integers become floats.

    Args:
        model: of the same layers, slots empty.
        source: as `fill_packed` or a training leaves it.
    """
    owners = quantizable(source)
    for name, layer in quantizable(model).items():
        owner = owners[name]
        matrices = owner.matrices()
        floats = matrices if owner.arithmetic is None else owner.arithmetic.float_matrices(matrices)
        layer.set_float(floats, owner.bias_vector())
    given = other_state(source)
    for name, own in other_state(model).items():
        for key, tensor in own.items():
            tensor.copy_(given[name][key])
