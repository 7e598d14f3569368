"""Bit widths in words: the short label of a figure (`W4A8`), the longer text of a table, and what counts as uniform."""

from analysis.records import FLOAT, Run, Width
from analysis.text import DASH

SHORT = {"encoder": "enc", "predictor": "pred", "joiner": "join"}


def label(run: Run) -> str:
    """Short name of a run's widths: `float`, `W4`, `W4A8`, `W3.4A8` for a mean over layers, `W4 enc` for a part."""
    quantized = _quantized(run)
    if not quantized:
        return "float"
    weight = _mean([(width.weight, _parameters(run, name)) for name, width in quantized.items()])
    activation = _mean([(value, 1) for value in _activations(run, quantized)])
    text = (f"W{weight}" if weight else "") + (f"A{activation}" if activation else "")
    return text + _part(run, quantized)


def describe(run: Run) -> str:
    """A run's widths for a table: `W4A8`, or `W2–6 (mean 3.4), A8`, and whatever is out of the ordinary."""
    quantized = _quantized(run)
    if not run.widths and run.policy != "float":
        return DASH
    if not quantized:
        return "float"
    weights = sorted({width.weight for width in quantized.values()} - {FLOAT})
    if len(weights) < 2:
        text = label(run)
    else:
        mean = _mean([(width.weight, _parameters(run, name)) for name, width in quantized.items()])
        text = f"W{weights[0]}–{weights[-1]} (mean {mean})"
        if activations := sorted(set(_activations(run, quantized)) - {FLOAT}):
            text += f" A{activations[0]}" + (f"–{activations[-1]}" if len(activations) > 1 else "")
        text += _part(run, quantized)
    return ", ".join([text, *_unusual(list(quantized.values()))])


def uniform(run: Run) -> tuple[int, int] | None:
    """(weight bits, activation bits) if every layer has the same; None for mixed, partial or float maps."""
    weights = {width.weight for width in run.widths.values()}
    activations = set(_activations(run, run.widths))
    if len(weights) != 1 or len(activations) > 1 or weights == {FLOAT}:
        return None
    return weights.pop(), activations.pop() if activations else FLOAT


def cell(width: Width | None, tabular: bool = False) -> str:
    """One layer's widths, weight/activation: `4/8`, `4` where activations are float (or `tabular`), `float`."""
    if width is None:
        return ""
    if not width.quantized:
        return "float"
    weight = "f" if width.weight == FLOAT else str(width.weight)
    return weight if width.activation == FLOAT or tabular else f"{weight}/{width.activation}"


def is_table(run: Run, name: str) -> bool:
    """Whether the layer is a look-up table: it has no activations to quantize."""
    return name in run.layers and run.layers[name].kind == "embedding"


def _quantized(run: Run) -> dict[str, Width]:
    return {name: width for name, width in run.widths.items() if width.quantized}


def _parameters(run: Run, name: str) -> int:
    return run.layers[name].parameters if name in run.layers else 1


def _activations(run: Run, widths: dict[str, Width]) -> list[int]:
    return [width.activation for name, width in widths.items() if not is_table(run, name)]


def _mean(values: list[tuple[int, int]]) -> str:
    """Weighted mean of the widths below float: `4` where all agree, else `3.4`; empty if all are float."""
    kept = [(value, weight) for value, weight in values if value != FLOAT]
    if len({value for value, _ in kept}) < 2:
        return str(kept[0][0]) if kept else ""
    total = sum(weight for _, weight in kept) or 1
    return f"{sum(value * weight for value, weight in kept) / total:.1f}"


def _part(run: Run, quantized: dict[str, Width]) -> str:
    """Which parts are quantized, if not the whole: ` enc`, ` enc+join`; ` part` if every part has layers in float."""
    if len(quantized) == len(run.widths):
        return ""
    parts, whole = (
        {SHORT.get(part := name.split(".")[0], part): None for name in names} for names in (quantized, run.widths)
    )
    return f" {'+'.join(parts)}" if len(parts) < len(whole) else " part"


def _unusual(widths: list[Width]) -> list[str]:
    found = []
    if any(width.quantizer != "uniform" for width in widths):
        found.append("+".join(sorted({width.quantizer for width in widths})))
    if any(width.granularity != "channel" for width in widths):
        found.append("per " + "+".join(sorted({width.granularity for width in widths})))
    if cpu := sum(width.placement == "cpu" for width in widths):
        found.append(f"{cpu} on CPU")
    return found
