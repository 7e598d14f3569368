"""Layer shapes, widths, and the globs that give every layer its own."""

from typing import Any

import pytest

from qstudy.bits import WIDTHS, LayerBits, LayerShape, resolve
from qstudy.errors import UserError
from qstudy.quant.packed.layer import PackedArithmetic
from qstudy.quant.policies import build_policy

SHAPES = [
    LayerShape("encoder.normalize", "constant", vectors=80),
    LayerShape("encoder.lstm.0", "lstm", ((8, 5), (8, 2)), vectors=8),
    LayerShape("encoder.lstm.1", "lstm", ((8, 2), (8, 2)), vectors=8),
    LayerShape("joiner.output", "linear", ((7, 3),), vectors=7),
]


def weights(patterns: dict[str, Any], default: LayerBits | None = None) -> list[int]:
    return [bits.weight for bits in resolve(patterns, SHAPES, default).values()]


def test_parameters() -> None:
    assert [shape.parameters for shape in SHAPES] == [80, 64, 40, 28]


def test_every_quantizable_layer_in_the_models_order() -> None:
    assert list(resolve({}, SHAPES)) == ["encoder.lstm.0", "encoder.lstm.1", "joiner.output"]
    assert not any(bits.quantized for bits in resolve({}, SHAPES).values())
    assert weights({}, LayerBits(weight=8)) == [8, 8, 8]


def test_the_last_match_wins() -> None:
    assert weights({"*": {"weight": 4}, "joiner.*": {"weight": 8}}) == [4, 4, 8]
    assert weights({"joiner.*": {"weight": 8}, "*": {"weight": 4}}) == [4, 4, 4]
    assert weights({"encoder.lstm.[01]": {"weight": 3}, "*.1": {"weight": 16}}) == [3, 16, 32]


def test_each_field_by_itself() -> None:
    patterns = {"*": {"weight": 4, "activation": 8}, "joiner.output": {"granularity": "tensor", "weight": 2}}
    bits = resolve(patterns, SHAPES)
    assert bits["joiner.output"] == LayerBits(weight=2, activation=8, granularity="tensor")
    assert bits["encoder.lstm.1"] == LayerBits(weight=4, activation=8)


def test_sums_that_could_overflow_are_refused() -> None:
    """Of a user's own, very wide layer: at 8 by 8 bits the largest sum of 65,793 products is the last to fit. What the
    policy makes of the widths counts: codebooks are of 8 bits, and edges have widths of their own."""
    widest, wider = (LayerShape("wide", "linear", ((2, columns),), activations=1) for columns in (65793, 65794))
    eight, four = ({"*": {"weight": weight, "activation": 8}} for weight in (8, 4))
    for policy in (
        {"name": "fake_qat", "layers": eight},
        {"name": "s8bqat", "layers": four},
        {"name": "int4_e2e", "edges": 8},
    ):
        (bits,) = build_policy(policy).bit_map([widest]).values()
        with pytest.raises(UserError, match=r"layers: wide: sums over 65,794 inputs at . by 8 bits do not fit into 32"):
            build_policy(policy).bit_map([wider])
        assert PackedArithmetic.takes(widest, bits)
        assert not PackedArithmetic.takes(wider, bits)
    for widths in ({"weight": 8}, {"weight": 8, "activation": 8, "granularity": "group"}):
        build_policy({"name": "fake_qat", "layers": {"*": widths}}).bit_map([wider])
    build_policy({"name": "fake_qat", "layers": four}).bit_map([wider])


def test_the_columns_of_a_group_wait_for_groups() -> None:
    """Wherever it is said that there are some, or none."""
    assert resolve({"*": {"group": 32}}, SHAPES, LayerBits(granularity="group"))["joiner.output"].group == 32
    for granularity in ("group", "channel"):
        bits = resolve({"*": {"granularity": granularity}, "joiner.*": {"group": 32}}, SHAPES)["joiner.output"]
        assert (bits.group, bits.granularity) == (32, granularity)


@pytest.mark.parametrize(
    ("patterns", "named"),
    [
        ({"encoder.gru.*": {"weight": 4}}, ["encoder.gru.*", "encoder.lstm.0", "joiner.output"]),
        ({"*": {"wieght": 4}}, ["'*'", "wieght", "weight"]),
        ({"*": 4}, ["'*'", "not a mapping"]),
        ({"*": {"weight": 9}}, ["weight", "9", "2, 3, 4, 5, 6, 7, 8, 16, 32"]),
        ({"*": {"activation": 1}}, ["activation", "1"]),
        ({"*": {"weight": "4"}}, ["weight", "'4'"]),
        ({"*": {"weight": None}}, ["weight", "None"]),
        ({"*": {"quantizer": "cubic"}}, ["quantizer", "cubic", "uniform, codebook"]),
        ({"*": {"granularity": "row"}}, ["granularity", "row", "channel, tensor"]),
        ({"*": {"weight": 4, "group": 32}}, ["encoder.lstm.0", "group: 32", "granularity: group"]),
        ({"*": {"placement": "gpu"}}, ["placement", "gpu", "accelerator, products, cpu"]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_errors_name_pattern_field_and_choices(patterns: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(UserError) as error:
        resolve(patterns, SHAPES)
    assert all(word in str(error.value) for word in named)


@pytest.mark.parametrize("width", WIDTHS)
def test_widths_survive_json(width: int) -> None:
    bits = LayerBits(weight=width, activation=width)
    assert LayerBits(**bits.to_dict()) == bits
    assert bits.quantized == (width != 32)
