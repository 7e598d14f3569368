"""Bit widths in words: the short label of a figure (`W4A8`), the longer text of a table, and what counts as uniform."""

from collections.abc import Iterator, Mapping, Sequence
from math import nan
from typing import Any

from analysis.text import DASH
from qstudy.bits import FLOAT

SHORT = {"encoder": "enc", "predictor": "pred", "joiner": "join"}

Layers = Sequence[Mapping[str, Any]]
"""The quantizable layers of one run, rows of `analysis.frames.Frames.layers`."""
Counted = Sequence[tuple[int, int]]
"""(bits, how often they count)."""


def widths(layers: Layers) -> dict[str, Any]:
    """The columns of `analysis.frames` that tell widths: bits, label, uniform, weight_bits and activation_bits."""
    quantized = [layer for layer in layers if min(layer["weight"], layer["activation"]) < FLOAT]
    label, bits = _words(layers, quantized) if quantized else ("float", "float" if layers else DASH)
    weights, activations = _counted(layers)
    few = [{bits for bits, _ in some} for some in (weights, activations)]
    uniform = len(few[0]) == 1 and len(few[1]) < 2 and few[0] != {FLOAT}
    found = {"bits": bits, "label": label, "uniform": uniform}
    if uniform:
        return found | {"weight_bits": weights[0][0], "activation_bits": activations[0][0] if activations else FLOAT}
    return found | {"weight_bits": _mean(weights), "activation_bits": _mean(activations)}


def _counted(layers: Layers) -> tuple[Counted, Counted]:
    """Widths of weights and of activations; a layer of unknown size counts once, and a look-up table has no inputs."""
    weights = [(layer["weight"], layer.get("parameters", 1) or 0) for layer in layers]
    return weights, [(layer["activation"], 1) for layer in layers if layer.get("kind") != "embedding"]


def _mean(values: Counted, nothing: float = nan) -> float:
    total = sum(count for _, count in values)
    return sum(bits * count for bits, count in values) / total if total else nothing


def _words(layers: Layers, quantized: Layers) -> tuple[str, str]:
    """`W4A8` twice, or `W3.4A8` and `W2–6 (mean 3.4) A8`; the longer one also tells what is out of the ordinary."""
    below = [[(bits, count) for bits, count in some if bits < FLOAT] for some in _counted(quantized)]
    means, ranges = ([of(some) for some in below if some] for of in (_mean_in_words, _range))
    letters = [letter for letter, some in zip("WA", below, strict=True) if some]
    part = _part(layers, quantized)
    label = text = "".join(map("{}{}".format, letters, means)) + part
    if "W" in letters and "–" in ranges[0]:
        ranges[0] += f" (mean {means[0]})"
        text = " ".join(map("{}{}".format, letters, ranges)) + part
    return label, ", ".join([text, *_unusual(quantized)])


def _mean_in_words(values: Counted) -> str:
    """`4` where all agree, else `3.4`."""
    return f"{_mean(values, 0):.1f}" if len({bits for bits, _ in values}) > 1 else str(values[0][0])


def _range(values: Counted) -> str:
    """`4`, or `2–6`."""
    return "–".join(str(bits) for bits in dict.fromkeys((min(values)[0], max(values)[0])))


def _part(layers: Layers, quantized: Layers) -> str:
    """Which parts are quantized, if not the whole: ` enc`, ` enc+join`; ` part` if every part has layers in float."""
    if len(quantized) == len(layers):
        return ""
    parts, whole = (list(dict.fromkeys(layer["layer"].split(".")[0] for layer in some)) for some in (quantized, layers))
    return f" {'+'.join(SHORT.get(part, part) for part in parts)}" if len(parts) < len(whole) else " part"


def _unusual(layers: Layers) -> Iterator[str]:
    quantizers, granularities = (sorted({layer[key] for layer in layers}) for key in ("quantizer", "granularity"))
    if quantizers != ["uniform"]:
        yield "+".join(quantizers)
    if granularities != ["channel"]:
        yield "per " + "+".join(granularities)
    if on_cpu := sum(layer["placement"] == "cpu" for layer in layers):
        yield f"{on_cpu} on CPU"
