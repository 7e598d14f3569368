"""Bit widths in words: the short label of a figure (`W4A8`), the longer text of a table, and what counts as uniform.

All functions take the quantizable layers of one run, each a row of `analysis.frames.Frames.layers`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.text import DASH
from qstudy.bits import FLOAT

SHORT = {"encoder": "enc", "predictor": "pred", "joiner": "join"}

Layers = Sequence[Mapping[str, Any]]


def label(layers: Layers) -> str:
    """Short name of a run's widths: `float`, `W4`, `W4A8`, `W3.4A8` for a mean over layers, `W4 enc` for a part."""
    quantized = _quantized(layers)
    weight, activation = _mean_below_float(_weights(quantized)), _mean_below_float(_activations(quantized))
    text = (f"W{weight}" if weight else "") + (f"A{activation}" if activation else "")
    return text + _part(layers, quantized) if quantized else "float"


def describe(layers: Layers) -> str:
    """A run's widths for a table: `W4A8`, or `W2–6 (mean 3.4) A8`, and whatever is out of the ordinary."""
    quantized = _quantized(layers)
    if not quantized:
        return "float" if layers else DASH
    weights, activations = (
        sorted({bits for bits, _ in some} - {FLOAT}) for some in (_weights(quantized), _activations(quantized))
    )
    text = label(layers)
    if len(weights) > 1:
        text = f"W{weights[0]}–{weights[-1]} (mean {_mean_below_float(_weights(quantized))})"
        text += f" A{'–'.join(map(str, dict.fromkeys((activations[0], activations[-1]))))}" if activations else ""
        text += _part(layers, quantized)
    return ", ".join([text, *_unusual(quantized)])


def uniform(layers: Layers) -> tuple[int, int] | None:
    """(weight bits, activation bits) if every layer has the same; None for mixed, partial or float maps."""
    weights, activations = {bits for bits, _ in _weights(layers)}, {bits for bits, _ in _activations(layers)}
    if len(weights) != 1 or len(activations) > 1 or weights == {FLOAT}:
        return None
    return weights.pop(), activations.pop() if activations else FLOAT


def means(layers: Layers) -> tuple[float | None, float | None]:
    """Mean (weight bits over parameters, activation bits over layers); layers in float count as 32 bits."""
    return _mean(_weights(layers)), _mean(_activations(layers))


Counted = Sequence[tuple[int, int]]
"""(bits, how often they count)."""


def _quantized(layers: Layers) -> Layers:
    return [layer for layer in layers if min(layer["weight"], layer["activation"]) < FLOAT]


def _weights(layers: Layers) -> Counted:
    """A layer of unknown size counts as one parameter."""
    return [(layer["weight"], layer.get("parameters", 1) or 0) for layer in layers]


def _activations(layers: Layers) -> Counted:
    """A look-up table has none."""
    return [(layer["activation"], 1) for layer in layers if layer.get("kind") != "embedding"]


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


def _unusual(layers: Layers) -> list[str]:
    quantizers, granularities = (sorted({layer[key] for layer in layers}) for key in ("quantizer", "granularity"))
    found = ["+".join(quantizers)] if quantizers != ["uniform"] else []
    found += ["per " + "+".join(granularities)] if granularities != ["channel"] else []
    on_cpu = sum(layer["placement"] == "cpu" for layer in layers)
    return found + ([f"{on_cpu} on CPU"] if on_cpu else [])
