"""Bit widths in words: the short label of a figure (`W4A8`), the longer text of a table, and what counts as uniform.

All functions take a record's `bit_map` (layer -> its widths) and `layers` (layer -> its kind and size).
"""

from collections.abc import Mapping
from typing import Any

from analysis.text import DASH
from qstudy.bits import FLOAT

SHORT = {"encoder": "enc", "predictor": "pred", "joiner": "join"}

Widths = Mapping[str, Mapping[str, Any]]
Layers = Mapping[str, Mapping[str, Any]]


def label(widths: Widths, layers: Layers) -> str:
    """Short name of a run's widths: `float`, `W4`, `W4A8`, `W3.4A8` for a mean over layers, `W4 enc` for a part."""
    quantized = _quantized(widths)
    if not quantized:
        return "float"
    weight = _words(_weights(quantized, layers))
    activation = _words([(bits, 1) for bits in _activations(quantized, layers)])
    text = (f"W{weight}" if weight else "") + (f"A{activation}" if activation else "")
    return text + _part(widths, quantized)


def describe(widths: Widths, layers: Layers) -> str:
    """A run's widths for a table: `W4A8`, or `W2–6 (mean 3.4) A8`, and whatever is out of the ordinary."""
    if not widths:
        return DASH
    quantized = _quantized(widths)
    if not quantized:
        return "float"
    weights = sorted({weight(bits) for bits in quantized.values()} - {FLOAT})
    if len(weights) < 2:
        text = label(widths, layers)
    else:
        text = f"W{weights[0]}–{weights[-1]} (mean {_words(_weights(quantized, layers))})"
        if activations := sorted(set(_activations(quantized, layers)) - {FLOAT}):
            text += f" A{activations[0]}" + (f"–{activations[-1]}" if len(activations) > 1 else "")
        text += _part(widths, quantized)
    return ", ".join([text, *_unusual(list(quantized.values()))])


def uniform(widths: Widths, layers: Layers) -> tuple[int, int] | None:
    """(weight bits, activation bits) if every layer has the same; None for mixed, partial or float maps."""
    weights = {weight(bits) for bits in widths.values()}
    activations = set(_activations(widths, layers))
    if len(weights) != 1 or len(activations) > 1 or weights == {FLOAT}:
        return None
    return weights.pop(), activations.pop() if activations else FLOAT


def means(widths: Widths, layers: Layers) -> tuple[float | None, float | None]:
    """Mean (weight bits over parameters, activation bits over layers); layers in float count as 32 bits."""
    weights, activations = _weights(widths, layers), _activations(widths, layers)
    total = sum(count for _, count in weights)
    weight_bits = sum(bits * count for bits, count in weights) / total if total else None
    return weight_bits, sum(activations) / len(activations) if activations else None


def weight(bits: Mapping[str, Any]) -> int:
    """Bits of a layer's weights."""
    return int(bits.get("weight") or FLOAT)


def activation(bits: Mapping[str, Any]) -> int:
    """Bits of a layer's activations."""
    return int(bits.get("activation") or FLOAT)


def is_table(layers: Layers, name: str) -> bool:
    """Whether the layer is a look-up table: it has no activations to quantize."""
    return layers.get(name, {}).get("kind") == "embedding"


def _quantized(widths: Widths) -> Widths:
    return {name: bits for name, bits in widths.items() if min(weight(bits), activation(bits)) < FLOAT}


def _weights(widths: Widths, layers: Layers) -> list[tuple[int, int]]:
    """(bits, parameters) of every layer; a layer of unknown size counts as one parameter."""
    return [
        (weight(bits), layers[name].get("parameters") or 0 if name in layers else 1) for name, bits in widths.items()
    ]


def _activations(widths: Widths, layers: Layers) -> list[int]:
    return [activation(bits) for name, bits in widths.items() if not is_table(layers, name)]


def _words(values: list[tuple[int, int]]) -> str:
    """Weighted mean of the widths below float: `4` where all agree, else `3.4`; empty if all are float."""
    kept = [(bits, count) for bits, count in values if bits != FLOAT]
    if len({bits for bits, _ in kept}) < 2:
        return str(kept[0][0]) if kept else ""
    total = sum(count for _, count in kept) or 1
    return f"{sum(bits * count for bits, count in kept) / total:.1f}"


def _part(widths: Widths, quantized: Widths) -> str:
    """Which parts are quantized, if not the whole: ` enc`, ` enc+join`; ` part` if every part has layers in float."""
    if len(quantized) == len(widths):
        return ""
    parts, whole = (
        {SHORT.get(part := name.split(".")[0], part): None for name in names} for names in (quantized, widths)
    )
    return f" {'+'.join(parts)}" if len(parts) < len(whole) else " part"


def _unusual(widths: list[Mapping[str, Any]]) -> list[str]:
    quantizers = sorted({bits.get("quantizer") or "uniform" for bits in widths})
    granularities = sorted({bits.get("granularity") or "channel" for bits in widths})
    found = ["+".join(quantizers)] if quantizers != ["uniform"] else []
    found += ["per " + "+".join(granularities)] if granularities != ["channel"] else []
    on_cpu = sum(bits.get("placement") == "cpu" for bits in widths)
    return found + ([f"{on_cpu} on CPU"] if on_cpu else [])
