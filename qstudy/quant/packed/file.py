"""The file of a packed model: safetensors with a JSON header, and hashes of both. Every reader of `.qst` is this one.

It imports without torch, so that a model is priced at once. Files may come from anyone: nothing that they say is
believed before it was checked, and no message passes on more than a sentence.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from qstudy.bits import BitMap, LayerBits, LayerShape
from qstudy.errors import UserError, naming
from qstudy.fields import checked, fill
from qstudy.files import content_hash, parse_json, refuse_endless, replacing
from qstudy.hardware.size import layer_bytes

HEADER = "qstudy"  # the key of our JSON among safetensors' metadata
FORMAT = 2
LONGEST_KEY = 100  # characters of a tensor's name within its layer
Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")


class Contents(NamedTuple):
    """A packed model as it lies in its file."""

    header: dict[str, Any]
    """What was saved, without the hashes."""
    arrays: Arrays
    """Tensors by name."""
    shapes: list[LayerShape]
    """The model's layers."""
    bit_map: BitMap
    """Their widths."""


def write(path: Path, arrays: Arrays, header: Mapping[str, Any]) -> None:
    """Write one safetensors file, atomically.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    full = {**header, "format": FORMAT, "sha256": _digest(arrays)}
    metadata = {HEADER: json.dumps({**full, "header_sha256": content_hash(full)}, sort_keys=True, allow_nan=False)}
    with replacing(path) as temporary:
        temporary.write_bytes(safetensors.numpy.save(arrays, metadata))


def read(path: Path) -> Contents:
    """Read a packed model; it is whole, and its header is well-formed.

    Raises:
        UserError: the file is missing, truncated, damaged, or not a packed model.
    """
    refuse_endless(path)
    try:
        with safetensors.safe_open(str(path), "numpy") as file:
            header = parse_json((file.metadata() or {})[HEADER].encode(), f"The header of {path}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        whole = header.pop("header_sha256") == content_hash(header) and header.pop("sha256") == _digest(arrays)
    except FileNotFoundError as error:
        raise UserError(f"There is no packed model {path}; make one with `qstudy export`.") from error
    except (
        safetensors.SafetensorError,
        ArithmeticError,
        AttributeError,
        LookupError,
        OSError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise UserError(f"{path} is not a complete packed model ({_reason(error)}); export it again.") from error
    if not whole or header.pop("format", None) != FORMAT:
        raise UserError(f"{path} is damaged or of another format version; export it again.")
    _require_printable(path, [*arrays, *_names(header)])
    layers, widths = _layers(header, path)
    _require_sizes(path, arrays, layers, widths)
    return Contents(header, arrays, layers, widths)


def describe_layers(shapes: list[LayerShape], bit_map: BitMap) -> dict[str, Any]:
    """The part of a header that `read` turns into layers again."""
    return {
        "shapes": [asdict(shape) for shape in shapes],
        "bit_map": {name: bits.to_dict() for name, bits in bit_map.items()},
    }


def _names(header: Any) -> Iterator[str]:
    """All keys in a header, and the names of layers and parts: what messages say of it."""
    waiting = [header]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value
            yield str(value.get("name", ""))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _require_printable(path: Path, names: Iterable[str]) -> None:
    """Raise UserError if a name has control characters: a message with it could look like lines of ours."""
    for name in names:
        if not name.isprintable():
            raise UserError(f"{path} holds the name {name[:60]!a}, with control characters; export it again.")


def _layers(header: Mapping[str, Any], path: Path) -> tuple[list[LayerShape], BitMap]:
    """
    Raises:
        UserError: a field is missing, of another type or out of its range, or layers and widths do not belong together.
    """
    with naming(path):
        shapes = checked(list[dict[str, Any]], header.get("shapes"), "shapes")
        bit_map = checked(dict[str, dict[str, Any]], header.get("bit_map"), "bit_map")
    layers = [fill(LayerShape, shape, f"{path}: shapes.{index}") for index, shape in enumerate(shapes)]
    widths = {name: fill(LayerBits, bits, f"{path}: bit_map.{name}") for name, bits in bit_map.items()}
    names = [layer.name for layer in layers if layer.quantizable]
    if sorted(widths) != sorted(names):
        raise UserError(f"{path}: `bit_map` does not name the layers of `shapes`, each once; export it again.")
    return layers, {name: widths[name] for name in names}


def _require_sizes(path: Path, arrays: Arrays, layers: list[LayerShape], widths: BitMap) -> None:
    """
    Raises:
        UserError: a layer's tensors take other bytes than its shape and its widths say.
    """
    grouped, rest = by_layer(arrays, [layer.name for layer in layers])
    for layer in layers:
        own = sum(array.nbytes for array in grouped[layer.name].values())
        if own != (expected := layer_bytes(layer, widths.get(layer.name, LayerBits()))):
            raise UserError(
                f"{path}: the tensors of {layer.name} take {own} bytes, but must take {expected}; export it again."
            )
    if rest:
        raise UserError(f"{path} has tensors of no layer, such as {min(rest)[:100]}; export it again.")


def by_layer(tensors: Mapping[str, T], layers: Iterable[str]) -> tuple[dict[str, dict[str, T]], dict[str, T]]:
    """Tensors by the layer that they belong to and their names within it; and those of no layer."""
    grouped: dict[str, dict[str, T]] = {layer: {} for layer in layers}
    rest = {}
    for name, tensor in tensors.items():
        ends = [
            place for place, character in enumerate(name[-LONGEST_KEY:], len(name[:-LONGEST_KEY])) if character == "."
        ]
        owner = next((name[:end] for end in reversed(ends) if name[:end] in grouped), None)
        if owner is not None:
            grouped[owner][name[len(owner) + 1 :]] = tensor
        elif "" in grouped and "." not in name:  # the model's own
            grouped[""][name] = tensor
        else:
            rest[name] = tensor
    return grouped, rest


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return (str(error) or type(error).__name__).splitlines()[0][:200]
