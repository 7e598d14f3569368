"""Layers become operators: counts by hand for every kind."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from digits_shapes import DIGITS

from qstudy.bits import WITHOUT_MATRICES, LayerBits, LayerShape
from qstudy.errors import UserError
from qstudy.hardware.accelerator import load_accelerator
from qstudy.hardware.memory import traffic
from qstudy.hardware.model_shapes import load_sizes
from qstudy.hardware.search import Search
from qstudy.hardware.simulator import simulate
from qstudy.hardware.table import Columns, widths
from qstudy.hardware.workload import KINDS, Operator, layer_operators, workload
from qstudy.model.encoders.attention import BandAttention
from qstudy.quant.layers import Rate
from qstudy.workloads import with_widths

SIZES = """
name: tiny
source: the digits model, written down
beam: 2
bits: {"*": {weight: 8, activation: 8}, "encoder.*": {weight: 4}}
layers:
  - {name: encoder.lstm, kind: lstm, inputs: 120, hidden: 256, repeat: 3, every_ms: 30}
  - {name: predictor.embedding, kind: embedding, rows: 29, columns: 128, per_label: 1}
  - {name: predictor.lstm, kind: lstm, inputs: 128, hidden: 256, per_label: 1.0}
  - {name: joiner.encoder, kind: linear, inputs: 768, outputs: 128, every_ms: 90}
  - {name: joiner.predictor, kind: linear, inputs: 256, outputs: 128, bias: false, per_label: 1}
  - {name: joiner.output, kind: linear, inputs: 128, outputs: 29, every_ms: 90, per_label: 1}
"""


def by_name(operators: list[Operator]) -> dict[str, Operator]:
    return {operator.name: operator for operator in operators}


def test_lstm() -> None:
    parts = by_name(layer_operators(DIGITS[1]))
    assert list(parts) == ["encoder.lstm.0/input", "encoder.lstm.0/hidden", "encoder.lstm.0/cell"]
    assert parts["encoder.lstm.0/input"].macs == 1024 * 120
    assert parts["encoder.lstm.0/hidden"].macs == 1024 * 256
    assert parts["encoder.lstm.0/cell"].nonlinear == 5 * 256
    assert {part.every_ms for part in parts.values()} == {30.0}


def test_bidirectional_lstm_over_a_whole_utterance() -> None:
    matrices = ((40, 8), (40, 10)) * 2
    shape = LayerShape("lstm", "lstm", matrices, 80, 4, every_ms=20.0, frames=100, after_end=True)
    parts = by_name(layer_operators(shape))
    assert len(parts) == 6
    # Inputs of all frames go through one product; the recurrence takes one frame at a time, with the same weights.
    product, recurrence = parts["lstm/backward/input"], parts["lstm/backward/hidden"]
    assert (product.vectors, product.every_ms, product.reuse) == (100, 2000.0, 1)
    assert (recurrence.vectors, recurrence.every_ms, recurrence.reuse) == (1, 20.0, 100)
    assert all(part.after_end for part in parts.values())


def test_attention_and_depthwise_convolution() -> None:
    attention = LayerShape("a", "attention", ((64, 64),) * 4, 256, 4, every_ms=40.0, context=30, heads=4)
    parts = by_name(layer_operators(attention))
    assert sum(part.macs for part in parts.values()) == 4 * 64 * 64 + 2 * 30 * 64
    assert [name for name, part in parts.items() if not part.stored] == ["a/scores", "a/mixture"]
    (convolution,) = layer_operators(LayerShape("c", "depthwise", ((64, 31),), 64, 1, every_ms=40.0))
    assert convolution.macs == 64 * 31
    assert convolution.elementwise >= 2 * convolution.macs


def test_heads_have_scores_of_their_own() -> None:
    """D = 64 in 4 heads, 30 keys: as many products as with one head, 4 times the scores. Bytes in and out, and those of
    what is relative to positions, are counted for all heads, however the attention is told."""
    told = LayerShape("a", "attention", ((64, 64),) * 4, 256, 4, every_ms=40.0, context=30, heads=4)
    parts = [part for part in layer_operators(told) if not part.stored]
    with torch.device("meta"):
        attention = BandAttention(64, 4, 29, 0, True, Rate(every_ms=40.0))
    layers = {name: getattr(attention, name).shape(name) for name in ("scores", "mixture", "position")}
    scores, mixture, position = (layer_operators(shape)[0] for shape in layers.values())
    assert [(part.macs, part.outputs) for part in (scores, mixture, position)] == [
        (30 * 64, 4 * 30),
        (30 * 64, 64),
        (30 * 64, 4 * 30),
    ]
    assert scores.elementwise == 2 * 4 * 30
    for operators in ([scores, mixture, position], parts):
        bits = widths(operators, [{op.layer: LayerBits(8, 8) for op in operators}])
        moved = traffic(Columns(operators), bits, load_accelerator("edge_nna").memory, np.ones(len(operators)))
        assert moved.input_bytes[0].tolist() == [64, 4 * 30, 64][: len(operators)]
        assert moved.output_bytes[0].tolist() == [4 * 30, 64, 4 * 30][: len(operators)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [LayerBits(), LayerBits(8, 8), LayerBits(4, 8)], ids=["float", "w8a8", "w4a8"])
def test_every_kind_costs_time(kind: str, bits: LayerBits) -> None:
    matrices = {"lstm": ((64, 16), (64, 16))}.get(kind, () if kind in WITHOUT_MATRICES else ((64, 16),))
    shape = LayerShape("layer", kind, matrices, 64, 1, 10.0, context=8, inputs=16, outputs=64)
    report = simulate(workload([shape], {"layer": bits}), load_accelerator("edge_nna"))
    assert 0 < report.rtf < 1
    assert 0 < report.latency_ms < 1000


def test_amortized_branch_costs_its_share() -> None:
    full = LayerShape("layer", "linear", ((640, 640),), every_ms=10.0)
    half = LayerShape("layer", "linear", ((640, 640),), every_ms=10.0, share=0.5)
    accelerator = load_accelerator("edge_nna")
    costs = [simulate(workload([shape], {}), accelerator).rtf for shape in (full, half)]
    assert costs[1] == pytest.approx(costs[0] / 2, rel=1e-2)


def test_beam_multiplies_work_per_label() -> None:
    greedy, beam = workload(DIGITS, {}), workload(DIGITS, {}, search=Search(4))
    for one, four in zip(greedy.operators, beam.operators, strict=True):
        assert four.macs == one.macs * (4 if one.per_label else 1)


def test_there_are_no_codebooks_of_wide_weights() -> None:
    own = {"encoder": LayerBits(weight=4, quantizer="codebook"), "joiner": LayerBits(weight=4, quantizer="codebook")}
    half = with_widths(own, "encoder=w16a16")
    assert half == {"encoder": LayerBits(weight=16, activation=16), "joiner": own["joiner"]}
    assert with_widths(own, "encoder=w3a8")["encoder"] == LayerBits(weight=3, activation=8, quantizer="codebook")


def test_operators_on_the_cpu_by_pattern() -> None:
    cells = [op.name for op in workload(DIGITS, {}, cpu_operators=["*/cell"]).operators if op.on_cpu]
    assert cells == [f"encoder.lstm.{i}/cell" for i in range(3)] + ["predictor.lstm/cell"]


def test_sizes_give_the_shapes_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(SIZES)
    sizes = load_sizes(path)
    assert list(sizes.shapes) == DIGITS[1:]  # all but normalization
    assert sizes.bit_map["encoder.lstm.2"] == LayerBits(4, 8)
    assert sizes.bit_map["joiner.output"] == LayerBits(8, 8)
    assert (sizes.name, sizes.search) == ("tiny", Search(2))


def test_conformer_sizes(tmp_path: Path) -> None:
    path = tmp_path / "conformer.yaml"
    entry = {"width": 144, "feed_forward": 576, "heads": 4, "kernel": 31, "context": 64, "repeat": 16, "every_ms": 40}
    path.write_text(f"layers: [{{name: encoder, kind: conformer, {', '.join(f'{k}: {v}' for k, v in entry.items())}}}]")
    sizes = load_sizes(path)
    # Conformer (S) has 10.3 M parameters (Gulati et al. 2020); less its subsampling (0.6 M), its decoder and joiner
    # (1.6 M) and its relative positions (0.3 M), the 16 blocks have a little below 8 M.
    assert 7.6e6 < sum(shape.parameters for shape in sizes.shapes) < 8e6
    assert simulate(sizes.workload(), load_accelerator("edge_nna")).rtf > 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hidden: 256, repeat", "hiden: 256, repeat", "encoder.lstm: unknown field 'hiden'"),
        ("rows: 29, ", "", "predictor.embedding: the field 'rows' is missing"),
        ("rows: 29", "rows: many", "predictor.embedding: rows: 'many' should be a valid integer"),
        ("rows: 29", "rows: true", "rows: True"),
        ("rows: 29", f"rows: {10**30}", "rows: 1000000"),
        ("rows: 29", "rows: 1000000000", "rows: 1000000000 should be less"),
        ("repeat: 3", "repeat: 1000000000", "repeat: 1000000000 should be less"),
        (", every_ms: 30", "", "encoder.lstm: every_ms: missing; say how often"),
        ("per_label: 1.0", "per_label: 0", "predictor.lstm: every_ms: missing"),
        ("every_ms: 30", "every_ms: .inf", "every_ms: inf"),
        ("every_ms: 30", "every_ms: .nan", "every_ms: nan"),
        ("every_ms: 30", "every_ms: 0", "every_ms: 0"),
        ("every_ms: 30", "every_ms: 1.0e-300", "every_ms: 1e-300"),
        ("bias: false", "bias: no thanks", "bias: 'no thanks'"),
        ("per_label: 1.0", "per_label: -1", "per_label: -1"),
        ("per_label: 1.0", "share: 2.0, per_label: 1", "share: 2"),
        ("kind: embedding", "kind: [embedding]", "layers.1.kind: a list"),
        ("name: predictor.embedding, ", "", "layers.1.name: None"),
        ("name: predictor.embedding", "name: {a: b}", "layers.1.name: a mapping"),
        ("name: tiny", "name: [tiny]", "name: a list"),
        ("name: tiny", 'name: "t\\e[2J"', "name: 't"),
        ('bits: {"*"', 'bits: [] # {"*"', "bits: a list"),
        ("{weight: 4}", "4", "bits.encoder.*: 4"),
        ("rows: 29", "rows: -29", "rows: -29"),
        ("kind: embedding", "kind: embeding", "embedding"),
        ("beam: 2", "beam: 0", "beam: 0"),
        ("beam: 2", "beam: 1.5", "beam: 1.5"),
        ("beam: 2", "beam: 100000", "beam: 100000"),
        ('"encoder.*"', '"decoder.*"', "matches no layer"),
        ("layers:", "laiers:", "layers"),
        ("source:", "sauce:", "unknown field 'sauce'"),
        ("name: joiner.predictor", "name: joiner.encoder", "same name"),
        ("beam: 2", "beam: [", "not valid YAML"),
    ],
)
def test_mistakes_in_sizes_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SIZES
    path = tmp_path / "bad.yaml"
    path.write_text(SIZES.replace(old, new))
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load_sizes(path)
    assert "bad.yaml" in str(caught.value)


def test_sizes_that_together_are_too_large(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    layer = "kind: linear, inputs: 1000000, outputs: 1000000, every_ms: 30, frames: 100000"
    path.write_text(f"layers: [{{name: huge, {layer}}}]")
    with pytest.raises(UserError, match=r"huge: 1\.0e\+17 operations a run are too many"):
        load_sizes(path).workload()
    lstm = "kind: lstm, inputs: 8, hidden: 8, repeat: 1000, every_ms: 30"
    path.write_text("layers:\n" + "".join(f"  - {{name: lstm{i}, {lstm}}}\n" for i in range(11)))
    with pytest.raises(UserError, match="more than 10000"):
        load_sizes(path)
