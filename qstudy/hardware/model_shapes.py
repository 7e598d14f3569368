"""Models from a YAML of sizes alone, so that a published model can be priced without its weights.

A file has a `name`, a list of `layers`, and may have `bits` (ordered glob patterns, as in a run's policy) and what its
search is like: `beam`, `expansions`, `labels_per_hypothesis`, `batches_per_label` (see `Search`).
Each entry of `layers` has a `name` and a `kind` with that kind's sizes:

| kind | sizes |
|---|---|
| `linear` | inputs, outputs, bias (true) |
| `lstm` | inputs, hidden, repeat (1), bidirectional (false) |
| `embedding` | rows, columns |
| `conformer` | width, feed_forward, heads, kernel, context, repeat (1) |

and says when it runs: `every_ms` or `per_label` or both, and `share`, `frames`, `after_end` (see `LayerShape`). Every
number has bounds far beyond any recognizer's, so that totals stay exact.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from annotated_types import Ge, Gt, Le, MinLen

from qstudy.bits import BitMap, LayerShape, resolve
from qstudy.errors import UserError, naming
from qstudy.fields import Name, checked
from qstudy.hardware.search import GREEDY, BatchesPerLabel, Beam, Expansions, LabelsPerHypothesis, Search
from qstudy.hardware.workload import Workload, workload
from qstudy.yaml_file import load_yaml

Size = Annotated[int, Ge(1), Le(1_000_000)]
Repeat = Annotated[int, Ge(1), Le(1000)]

TIMING: dict[str, Any] = {
    "every_ms": Annotated[float, Ge(0.01), Le(3_600_000)],
    "per_label": Annotated[float, Ge(0), Le(1000)],
    "share": Annotated[float, Gt(0), Le(1)],
    "frames": Annotated[int, Ge(1), Le(100_000)],
    "after_end": bool,
}
SEARCH: dict[str, Any] = {
    "beam": Beam,
    "expansions": Expansions,
    "labels_per_hypothesis": LabelsPerHypothesis,
    "batches_per_label": BatchesPerLabel,
}
FIELDS: dict[str, Any] = {
    "name": Name,
    "layers": Annotated[list[dict[str, Any]], MinLen(1)],
    "bits": dict[str, dict[str, Any]],
    **SEARCH,
    "source": Any,
}
MOST_LAYERS = 10_000


@dataclass(frozen=True)
class Sizes:
    """A model without weights."""

    name: str
    shapes: tuple[LayerShape, ...]
    bit_map: BitMap
    search: Search = GREEDY

    def workload(self, bit_map: BitMap | None = None, search: Search = GREEDY) -> Workload:
        """Its operators, in the file's widths and search or in others."""
        chosen = self.bit_map if bit_map is None else bit_map
        return workload(self.shapes, chosen, search=search.or_else(self.search), name=self.name)

    def fused_with(self, language_model: "Sizes", name: str) -> "Sizes":
        """This recognizer, whose hypotheses a language model scores label by label, as its layers `name.*`.

        Raises:
            UserError: the recognizer has no decoder, the other is no language model, or the name is taken.
        """
        if odd := [s for s in language_model.shapes if s.matrices and (s.every_ms is not None or not s.per_label)]:
            raise UserError(f"{name}: {odd[0].name} does not run per label alone, as layers of a language model do.")
        decoder = next((shape for shape in reversed(self.shapes) if shape.per_label), None)
        if decoder is None:
            raise UserError(f"{name}: {self.name} has no layer that runs per label; a language model scores labels.")
        added = tuple(
            replace(shape, name=f"{name}.{shape.name}", after_end=decoder.after_end, twice=decoder.twice)
            for shape in language_model.shapes
        )
        if taken := {shape.name for shape in self.shapes} & {shape.name for shape in added}:
            raise UserError(f"{name}: {self.name} has a layer {min(taken)} already; leave this language model out.")
        widths = {f"{name}.{layer}": bits for layer, bits in language_model.bit_map.items()}
        return replace(self, shapes=self.shapes + added, bit_map=self.bit_map | widths)


def load_sizes(path: Path) -> Sizes:
    """Read a YAML of sizes.

    Raises:
        UserError: the file is missing or no YAML, or a field is missing, unknown, of the wrong type or out of bounds.
    """
    values = {"name": path.stem, "bits": {}, **load_yaml(path)}
    _require_known(values, FIELDS, str(path))
    if "layers" not in values:
        raise UserError(f"{path}: layers: needs a list of at least one layer.")
    found = {name: checked(FIELDS[name], value, f"{path}: {name}") for name, value in values.items()}
    every = (shape for number, entry in enumerate(found["layers"]) for shape in _shapes(entry, path, number))
    shapes = tuple(islice(every, MOST_LAYERS + 1))
    if len(shapes) > MOST_LAYERS:
        raise UserError(f"{path}: layers: there are more than {MOST_LAYERS}; repeat fewer.")
    if len({shape.name for shape in shapes}) < len(shapes):
        raise UserError(f"{path}: layers: two layers have the same name; names must differ.")
    with naming(f"{path}: bits"):
        bit_map = resolve(found["bits"], shapes)
    search = Search(**{name: found[name] for name in SEARCH if name in found})
    return Sizes(found["name"], shapes, bit_map, search)


def _shapes(entry: dict[str, Any], path: Path, number: int) -> list[LayerShape]:
    """The layers of one entry."""
    place = f"{path}: layers.{number}"
    name, kind = (checked(Name, entry.get(field), f"{place}.{field}") for field in ("name", "kind"))
    if kind not in KINDS:
        raise UserError(f"{place}.kind: {kind!r} is not one of {', '.join(KINDS)}.")
    where, build = f"{path}: {name}", KINDS[kind]
    own = {field: hint for field, hint in get_type_hints(build, include_extras=True).items() if field != "return"}
    _require_known(entry, {**own, **TIMING, "kind": Name}, where)
    optional = {field for field, p in inspect.signature(build).parameters.items() if p.default is not p.empty}
    if missing := [field for field in own if field not in entry and field not in optional]:
        raise UserError(f"{where}: the field {missing[0]!r} is missing.")
    sizes = {field: checked(own[field], value, f"{where}: {field}") for field, value in entry.items() if field in own}
    timing = {f: checked(hint, entry[f], f"{where}: {f}") for f, hint in TIMING.items() if f in entry}
    if not timing.get("per_label") and "every_ms" not in timing:
        raise UserError(f"{where}: every_ms: missing; say how often the layer runs, by every_ms, per_label, or both.")
    if timing.get("frames", 1) > 1 and ("every_ms" not in timing or timing.get("per_label")):
        raise UserError(f"{where}: frames: only what runs on frames alone takes several at once; leave it out.")
    return [replace(shape, **timing) for shape in build(**sizes)]


def _require_known(values: dict[str, Any], fields: dict[str, Any], where: str) -> None:
    if unknown := [str(name) for name in values if name not in fields]:
        raise UserError(f"{where}: unknown field {unknown[0]!r}; fields are {', '.join(fields)}.")


def _linear(name: Name, inputs: Size, outputs: Size, bias: bool = True) -> Iterable[LayerShape]:
    yield LayerShape(name, "linear", ((outputs, inputs),), outputs * bias, 1)


def _lstm(
    name: Name, inputs: Size, hidden: Size, repeat: Repeat = 1, bidirectional: bool = False
) -> Iterable[LayerShape]:
    directions = 2 if bidirectional else 1
    for index in range(repeat):
        matrices = ((4 * hidden, inputs if index == 0 else directions * hidden), (4 * hidden, hidden)) * directions
        yield LayerShape(_numbered(name, index, repeat), "lstm", matrices, 4 * hidden * directions, 2 * directions)


def _embedding(name: Name, rows: Size, columns: Size) -> Iterable[LayerShape]:
    yield LayerShape(name, "embedding", ((rows, columns),))


def _conformer(
    name: Name, width: Size, feed_forward: Size, heads: Size, kernel: Size, context: Size, repeat: Repeat = 1
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
