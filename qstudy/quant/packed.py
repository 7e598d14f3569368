"""The packed model: what the device gets. Integers, scales, a JSON header: one safetensors file that runs as is."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from qstudy.bits import BitMap, LayerBits, LayerShape, described
from qstudy.errors import UserError
from qstudy.files import content_hash, replacing
from qstudy.quant.bitpack import pack
from qstudy.quant.layers import Quantizable, quantizable
from qstudy.quant.serving import SERVED
from qstudy.quant.serving.fused import fuse

HEADER = "qstudy"  # the key of our JSON among safetensors' metadata
HEADER_HASH = "header_sha256"
FORMAT = 1


class PackedModel:
    """Tensors by name, and a header that says what they are.

    Names: `LAYER.I.codes` uint8 bit-packed integers of matrix I, `LAYER.I.scale` float32 per row or matrix,
    `LAYER.I.float` float32 of a matrix left in float, `LAYER.bias` float32, `LAYER.activation` float32 (grids, 2)
    scale and zero point of the inputs (and of the hidden state); every other name is a constant of the model.
    """

    def __init__(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        self.tensors = tensors
        self.header = header

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors: the file less its header."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def shapes(self) -> list[LayerShape]:
        """The model's layers."""
        return described(self.header)[0]

    @property
    def bit_map(self) -> BitMap:
        """Every layer's widths."""
        return described(self.header)[1]

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically."""
        header = {**self.header, "format": FORMAT, "sha256": self._digest()}
        metadata = {HEADER: json.dumps({**header, HEADER_HASH: content_hash(header)}, sort_keys=True)}
        with replacing(path) as temporary:
            temporary.write_bytes(safetensors.torch.save(self.tensors, metadata))

    @classmethod
    def load(cls, path: Path) -> "PackedModel":
        """Read a packed model and check that it is whole.

        Raises:
            UserError: the file is missing, truncated, damaged, or not a packed model.
        """
        try:
            with safetensors.safe_open(str(path), "pt") as file:
                header = json.loads((file.metadata() or {})[HEADER])
                model = cls({name: file.get_tensor(name) for name in file.keys()}, header)  # noqa: SIM118
        except FileNotFoundError as error:
            raise UserError(f"There is no packed model {path}; make one with `qstudy export`.") from error
        except (safetensors.SafetensorError, KeyError, ValueError, OSError) as error:
            raise UserError(f"{path} is not a whole packed model ({error}); export it again.") from error
        if not isinstance(header, dict) or header.get("format") != FORMAT or not model._whole():
            raise UserError(f"{path} is damaged or of another format version; export it again.")
        return model

    def _whole(self) -> bool:
        """Whether tensors and header are those that were saved."""
        expected = content_hash({key: value for key, value in self.header.items() if key != HEADER_HASH})
        return self.header.get("sha256") == self._digest() and self.header.get(HEADER_HASH, expected) == expected

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            digest.update(name.encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def pack_model(
    model: nn.Module, bit_map: BitMap, shapes: Sequence[LayerShape], header: Mapping[str, Any]
) -> PackedModel:
    """Gather what the device gets: every layer's integers, biases and grids, and the model's constants.

    Args:
        model: float model with filled slots.
        bit_map: every quantizable layer's widths.
        shapes: the model's layers, constants included.
        header: what else the device must know: features, tokenizer, model configuration, policy.
    """
    tensors: dict[str, Tensor] = {}
    layers = quantizable(model)
    for name, layer in layers.items():
        tensors |= {f"{name}.{key}": value for key, value in _pack_layer(layer, bit_map[name]).items()}
    for shape in shapes:
        if shape.kind == "constant":
            owner = model.get_submodule(shape.name)
            tensors |= {f"{shape.name}.{key}": value for key, value in owner.named_buffers()}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    described = {
        "shapes": [asdict(s) for s in shapes],
        "bit_map": {name: b.to_dict() for name, b in bit_map.items()},
        "arithmetic": {name: layer.arithmetic.served for name, layer in layers.items() if layer.arithmetic},
    }
    settings = {name: layer.arithmetic.settings for name, layer in layers.items() if layer.arithmetic}
    described["settings"] = {name: values for name, values in settings.items() if values}
    return PackedModel(tensors, {**described, **header})


def _pack_layer(layer: Quantizable, bits: LayerBits) -> dict[str, Tensor]:
    matrices = layer.matrices()
    if layer.arithmetic is None:
        tensors = {f"{index}.float": matrix for index, matrix in enumerate(matrices)}
    else:
        tensors = layer.arithmetic.pack(matrices)
    for key in [key for key in tensors if key.endswith(".codes")]:
        tensors[key] = pack(tensors[key], bits.weight)
        tensors[key.replace("codes", "scale")] = tensors[key.replace("codes", "scale")].flatten()
    bias = layer.bias_vector()
    return tensors if bias is None else {**tensors, "bias": bias}


def fill_packed(model: nn.Module, packed: PackedModel) -> None:
    """Turn a freshly built float model into the packed one: its float matrices go, integers come."""
    bit_map, tensors = packed.bit_map, dict(packed.tensors)
    shapes = {shape.name: shape for shape in packed.shapes}
    for name, layer in quantizable(model).items():
        own = {key.removeprefix(f"{name}."): tensors.pop(key) for key in list(tensors) if key.startswith(f"{name}.")}
        bits, bias = bit_map[name], own.get("bias")
        if not bits.quantized:
            layer.set_float([own[f"{i}.float"] for i in range(len(shapes[name].matrices))], bias)
            continue
        layer.set_float([], bias)
        layer.drop_matrices()
        served = SERVED[packed.header.get("arithmetic", {}).get(name, "integer")]
        layer.arithmetic = arithmetic = served.unpack(own, shapes[name], bits)
        arithmetic.configure(packed.header.get("settings", {}).get(name, {}))
    fuse(model)
    _missing, unexpected = model.load_state_dict(tensors, strict=False)
    if unexpected:
        raise UserError(f"The packed model has tensors that the model lacks: {', '.join(unexpected)}; export it again.")


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
    constants = dict(source.named_buffers())
    for name, buffer in model.named_buffers():
        buffer.copy_(constants[name])
