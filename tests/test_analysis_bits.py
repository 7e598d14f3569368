"""Widths in words."""

import math
from typing import Any

import analysis_study as made
import pytest

from analysis.bits import widths as told

LAYERS = {name: {"kind": kind, "parameters": count} for name, (kind, count) in made.LAYERS.items()}
USUAL = {"quantizer": "uniform", "granularity": "channel", "placement": "accelerator"}


def layers(widths: dict[str, tuple[int, int]], **more: Any) -> list[dict[str, Any]]:
    return [
        {"layer": name, **LAYERS.get(name, {}), **USUAL, "weight": weight, "activation": activation, **more}
        for name, (weight, activation) in widths.items()
    ]


@pytest.mark.parametrize(
    ("widths", "short", "text", "same"),
    [
        (dict.fromkeys(LAYERS, (32, 32)), "float", "float", None),
        (dict.fromkeys(LAYERS, (4, 32)), "W4", "W4", (4, 32)),
        (dict.fromkeys(LAYERS, (4, 8)), "W4A8", "W4A8", (4, 8)),
        ({**dict.fromkeys(LAYERS, (4, 8)), "predictor.embedding": (4, 32)}, "W4A8", "W4A8", (4, 8)),
        (dict.fromkeys(LAYERS, (32, 8)), "A8", "A8", None),
        ({"encoder.lstm.1": (2, 8), "encoder.lstm.2": (4, 8)}, "W3.0A8", "W2–4 (mean 3.0) A8", None),
        ({"encoder.lstm.1": (4, 8), "joiner.output": (32, 32)}, "W4A8 enc", "W4A8 enc", None),
        ({"encoder.lstm.1": (32, 32), "joiner.output": (4, 32)}, "W4 join", "W4 join", None),
        ({"a.0": (4, 8), "a.1": (32, 32), "b": (4, 8)}, "W4A8 part", "W4A8 part", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_widths_in_words(widths: Any, short: str, text: str, same: tuple[int, int] | None) -> None:
    found = told(layers(widths))
    assert (found["label"], found["bits"], found["uniform"]) == (short, text, same is not None)
    if same:
        assert (found["weight_bits"], found["activation_bits"]) == same


def test_what_is_out_of_the_ordinary_is_told() -> None:
    widths = dict.fromkeys(LAYERS, (4, 8))
    codebook = layers(widths, quantizer="codebook", granularity="tensor")
    assert told(codebook)["bits"] == "W4A8, codebook, per tensor"
    assert told(layers(widths, placement="cpu"))["bits"] == "W4A8, 8 on CPU"
    assert told([])["bits"] == "–"


def test_means_weigh_layers_by_their_parameters() -> None:
    first, table = layers({"encoder": (4, 8), "table": (32, 32)})
    found = told([first | {"parameters": 300}, table | {"kind": "embedding", "parameters": 100}])
    assert (found["weight_bits"], found["activation_bits"]) == (11, 8)
    assert math.isnan(told([])["weight_bits"])
