"""Bit widths in words: the short label of a figure (`W4A8`), the longer text of a table, and what counts as uniform.

All functions take the quantizable layers of one run, each a row of `analysis.frames.Frames.layers`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.text import DASH
from qstudy.bits import FLOAT

SHORT = {"encoder": "enc", "predictor": "pred", "joiner": "join"}
USUAL = {"quantizer": ("uniform", ""), "granularity": ("channel", "per ")}
"""Field -> what is not worth a word, and what stands before others."""

Layers = Sequence[Mapping[str, Any]]
Counted = Sequence[tuple[int, int]]
"""(bits, how often they count)."""


def label(layers: Layers) -> str:
    """Short name of a run's widths: `float`, `W4`, `W4A8`, `W3.4A8` for a mean over layers, `W4 enc` for a part."""
    quantized = _quantized(layers)
    means = zip("WA", map(_mean_below_float, _counted(quantized)), strict=True)
    text = "".join(f"{letter}{mean}" for letter, mean in means if mean)
    return text + _part(layers, quantized) if quantized else "float"


def describe(layers: Layers) -> str:
    """A run's widths for a table: `W4A8`, or `W2–6 (mean 3.4) A8`, and whatever is out of the ordinary."""
    quantized = _quantized(layers)
    if not quantized:
        return "float" if layers else DASH
    text, counted = label(layers), _counted(quantized)
    weights, activations = (sorted({bits for bits, _ in some} - {FLOAT}) for some in counted)
    if len(weights) > 1:
        text = f"W{weights[0]}–{weights[-1]} (mean {_mean_below_float(counted[0])})"
        text += f" A{'–'.join(map(str, dict.fromkeys((activations[0], activations[-1]))))}" if activations else ""
        text += _part(layers, quantized)
    return ", ".join([text, *_unusual(quantized)])


def uniform(layers: Layers) -> tuple[int, int] | None:
    """(weight bits, activation bits) if every layer has the same; None for mixed, partial or float maps."""
    weights, activations = ({bits for bits, _ in some} for some in _counted(layers))
    if len(weights) != 1 or len(activations) > 1 or weights == {FLOAT}:
        return None
    return weights.pop(), activations.pop() if activations else FLOAT


def means(layers: Layers) -> tuple[float | None, float | None]:
    """Mean (weight bits over parameters, activation bits over layers); layers in float count as 32 bits."""
    weights, activations = _counted(layers)
    return _mean(weights), _mean(activations)


def _quantized(layers: Layers) -> Layers:
    return [layer for layer in layers if min(layer["weight"], layer["activation"]) < FLOAT]


def _counted(layers: Layers) -> tuple[Counted, Counted]:
    """Widths of weights and of activations; a layer of unknown size counts once, and a look-up table has no inputs."""
    weights = [(layer["weight"], layer.get("parameters", 1) or 0) for layer in layers]
    return weights, [(layer["activation"], 1) for layer in layers if layer.get("kind") != "embedding"]


def _mean(values: Counted) -> float | None:
    total = sum(count for _, count in values)
    return sum(bits * count for bits, count in values) / total if total else None


def _mean_below_float(values: Counted) -> str:
    """`4` where all agree, else `3.4`; empty if all are float."""
    kept = [(bits, count) for bits, count in values if bits != FLOAT]
    if len({bits for bits, _ in kept}) < 2:
        return str(kept[0][0]) if kept else ""
    return f"{_mean(kept) or 0:.1f}"


def _part(layers: Layers, quantized: Layers) -> str:
    """Which parts are quantized, if not the whole: ` enc`, ` enc+join`; ` part` if every part has layers in float."""
    if len(quantized) == len(layers):
        return ""
    parts, whole = (list(dict.fromkeys(layer["layer"].split(".")[0] for layer in some)) for some in (quantized, layers))
    return f" {'+'.join(SHORT.get(part, part) for part in parts)}" if len(parts) < len(whole) else " part"


def _unusual(layers: Layers) -> Iterable[str]:
    for field, (usual, before) in USUAL.items():
        found = sorted({layer[field] for layer in layers})
        if found != [usual]:
            yield before + "+".join(found)
    if on_cpu := sum(layer["placement"] == "cpu" for layer in layers):
        yield f"{on_cpu} on CPU"
