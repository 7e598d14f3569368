"""`mixed`: its own widths for every layer, over any other policy."""

from typing import Any

from qstudy.bits import BitPatterns


def mixed(layers: BitPatterns, base: str = "fake_qat", **options: Any) -> dict[str, Any]:
    """The configuration of the policy `base` with its own widths per layer.

    YAML: `policy: {name: mixed, layers: {encoder.lstm.0: {weight: 8}, encoder.lstm.1: {weight: 3}}}`

    Args:
        layers: ordered glob patterns over layer names -> widths.
        base: the policy that says in which arithmetic the widths are meant.
        options: that policy's other options.
    """
    return {"name": base, "layers": layers, **options}
