"""Models from a YAML of sizes alone, so that a published model can be priced without its weights.

A file has a `name`, a list of `layers`, and may have `bits` (ordered glob patterns, as in a run's policy) and `beam`.
Each entry of `layers` has a `name` and a `kind` with that kind's sizes:

| kind | sizes |
|---|---|
| `linear` | inputs, outputs, bias (true) |
| `lstm` | inputs, hidden, repeat (1), bidirectional (false) |
| `embedding` | rows, columns |
| `conformer` | width, feed_forward, heads, kernel, context, repeat (1) |

and says when it runs: `every_ms`, `per_label`, `share`, `frames`, `after_end` (see `LayerShape`).
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from qstudy.bits import BitMap, LayerShape, resolve
from qstudy.errors import UserError
from qstudy.hardware.workload import Workload, workload

TIMING = {"every_ms": float, "per_label": float, "share": float, "frames": int, "after_end": bool}
FIELDS = ("name", "layers", "bits", "beam", "source")


@dataclass(frozen=True)
class Sizes:
    """A model without weights."""

    name: str
    shapes: tuple[LayerShape, ...]
    bit_map: BitMap
    beam: int = 1

    def workload(self, bit_map: BitMap | None = None, beam: int | None = None) -> Workload:
        """Its operators, in the file's widths and beam or in others."""
        chosen = self.bit_map if bit_map is None else bit_map
        return workload(self.shapes, chosen, beam=self.beam if beam is None else beam, name=self.name)


def load_sizes(path: Path) -> Sizes:
    """Read a YAML of sizes.

    Raises:
        UserError: the file is missing or no YAML, or a field is missing, unknown, or of the wrong type.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the sizes {path}: {error}.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("layers"), list) or not raw["layers"]:
        raise UserError(f"{path}: layers: needs a list of at least one layer.")
    if unknown := sorted(set(raw) - set(FIELDS)):
        raise UserError(f"{path}: unknown field {unknown[0]!r}; fields are {', '.join(FIELDS)}.")
    shapes = tuple(shape for entry in raw["layers"] for shape in _shapes(entry, path))
    if len({shape.name for shape in shapes}) < len(shapes):
        raise UserError(f"{path}: layers: two layers have the same name; names must differ.")
    beam = raw.get("beam", 1)
    if not isinstance(beam, int) or beam < 1:
        raise UserError(f"{path}: beam: {beam!r} is not a whole number of at least 1.")
    bits = raw.get("bits", {})
    if not isinstance(bits, dict):
        raise UserError(f"{path}: bits: needs a mapping of glob patterns to widths.")
    try:
        bit_map = resolve(bits, shapes)
    except UserError as error:
        raise UserError(f"{path}: bits: {error}") from error
    return Sizes(str(raw.get("name", path.stem)), shapes, bit_map, beam)


def _shapes(entry: Any, path: Path) -> list[LayerShape]:
    """The layers of one entry."""
    if not isinstance(entry, dict) or "name" not in entry or entry.get("kind") not in KINDS:
        raise UserError(f"{path}: layers: {entry!r} needs a name and one of the kinds {', '.join(KINDS)}.")
    where = f"{path}: {entry['name']}"
    build = KINDS[entry["kind"]]
    wanted = {p.name: p for p in inspect.signature(build).parameters.values() if p.name != "name"}
    sizes = {key: value for key, value in entry.items() if key in wanted}
    timing = {key: value for key, value in entry.items() if key in TIMING}
    if unknown := sorted(set(entry) - set(sizes) - set(timing) - {"name", "kind"}):
        raise UserError(f"{where}: unknown field {unknown[0]!r}; fields are {', '.join([*wanted, *TIMING])}.")
    if missing := [key for key, p in wanted.items() if p.default is p.empty and key not in sizes]:
        raise UserError(f"{where}: the field {missing[0]!r} is missing.")
    for key, value in entry.items():
        kind = wanted[key].annotation if key in wanted else TIMING.get(key, str)
        whole = isinstance(value, int) and not isinstance(value, bool)
        fits = (isinstance(value, kind) and not (kind is int and not whole)) or (kind is float and whole)
        if not fits or (kind in (int, float) and (value < 0 or (value == 0 and key != "per_label"))):
            raise UserError(f"{where}: {key}: {value!r} is not a positive {kind.__name__}.")
    return [replace(shape, **timing) for shape in build(name=entry["name"], **sizes)]


def _linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Iterable[LayerShape]:
    yield LayerShape(name, "linear", ((outputs, inputs),), outputs * bias, 1)


def _lstm(name: str, inputs: int, hidden: int, repeat: int = 1, bidirectional: bool = False) -> Iterable[LayerShape]:
    directions = 2 if bidirectional else 1
    for index in range(repeat):
        matrices = ((4 * hidden, inputs if index == 0 else directions * hidden), (4 * hidden, hidden)) * directions
        yield LayerShape(_numbered(name, index, repeat), "lstm", matrices, 4 * hidden * directions, 2 * directions)


def _embedding(name: str, rows: int, columns: int) -> Iterable[LayerShape]:
    yield LayerShape(name, "embedding", ((rows, columns),))


def _conformer(
    name: str, width: int, feed_forward: int, heads: int, kernel: int, context: int, repeat: int = 1
) -> Iterable[LayerShape]:
    """Half feed-forward, attention, convolution, half feed-forward, each normalized (Gulati et al. 2020)."""
    for index in range(repeat):
        block = _numbered(name, index, repeat)
        up, down = (feed_forward, width), (width, feed_forward)
        square = (width, width)
        yield LayerShape(f"{block}.norm", "constant", vectors=10 * width)
        yield LayerShape(f"{block}.feed_forward.0", "linear", (up, down), feed_forward + width, 2)
        yield LayerShape(f"{block}.attention", "attention", (square,) * 4, 4 * width, 4, context=context, heads=heads)
        yield LayerShape(f"{block}.pointwise.0", "linear", ((2 * width, width),), 2 * width, 1)
        yield LayerShape(f"{block}.depthwise", "depthwise", ((width, kernel),), width, 1)
        yield LayerShape(f"{block}.pointwise.1", "linear", (square,), width, 1)
        yield LayerShape(f"{block}.feed_forward.1", "linear", (up, down), feed_forward + width, 2)


def _numbered(name: str, index: int, repeat: int) -> str:
    return name if repeat == 1 else f"{name}.{index}"


KINDS: dict[str, Callable[..., Iterable[LayerShape]]] = {
    "linear": _linear,
    "lstm": _lstm,
    "embedding": _embedding,
    "conformer": _conformer,
}
