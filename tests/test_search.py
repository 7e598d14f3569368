"""The whole search priced: hypotheses in one batch, their rates, and the language models that score them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from digits_shapes import DIGITS
from hypothesis import given, settings
from hypothesis import strategies as st
from test_workload import SIZES

import qstudy
from qstudy.bits import LayerBits, LayerShape, resolve
from qstudy.commands.beams import beams
from qstudy.commands.simulate import simulate
from qstudy.errors import UserError
from qstudy.hardware.accelerator import load_accelerator
from qstudy.hardware.model_shapes import Sizes, load_sizes
from qstudy.hardware.search import MOST, Search, counted
from qstudy.hardware.simulator import Report
from qstudy.hardware.simulator import simulate as price
from qstudy.hardware.size import layer_bytes
from qstudy.hardware.workload import Operator, workload
from qstudy.quant.packed.file import describe_layers, write

LM = [
    LayerShape("embedding", "embedding", ((29, 64),), per_label=1.0),
    LayerShape("lstm.0", "lstm", ((2048, 64), (2048, 512)), 2048, 2, per_label=1.0),
    LayerShape("output", "linear", ((29, 512),), 29, 1, per_label=1.0),
]
W4A4 = {"*": {"weight": 4, "activation": 4}}
RECOGNIZER = Sizes("digits", tuple(DIGITS), resolve(W4A4, DIGITS))
SCORER = Sizes("lm", tuple(LM), resolve(W4A4, LM))
FUSED = RECOGNIZER.fused_with(SCORER, "external_lm").fused_with(SCORER, "source_lm")
NPU = load_accelerator("mobile_npu")


def operators(search: Search, sizes: Sizes = FUSED) -> dict[str, Operator]:
    return {operator.name: operator for operator in sizes.workload(search=search).operators}


def runs(report: Report) -> dict[str, float | None]:
    return {operator.name: operator.runs for operator in report.operators}


def packed(path: Path, shapes: list[LayerShape]) -> Path:
    """The header of a packed model, as any is written."""
    bits = resolve(W4A4, shapes)
    arrays = {f"{s.name}.all": np.zeros(layer_bytes(s, bits.get(s.name, LayerBits())), np.uint8) for s in shapes}
    write(path, arrays, describe_layers(shapes, bits))
    return path


def test_work_that_was_counted() -> None:
    assert counted(8, frames=100, labels=20, expansions=150, computed=320, calls=60) == Search(8, 1.5, 2.0, 3.0)
    assert counted(8, frames=100, labels=0, expansions=150, computed=320, calls=60) == Search(8)


def test_a_recognizer_that_says_hardly_anything_is_priced_all_the_same() -> None:
    few = counted(8, frames=20_000, labels=2, expansions=25_000, computed=9_000, calls=4_000)
    assert few == Search(8, 1.25, 562.5, MOST)
    fewer = counted(2, frames=20_000, labels=1, expansions=25_000, computed=9_000, calls=4_500)
    assert (fewer.labels_per_hypothesis, fewer.batches_per_label) == (MOST, MOST)
    assert price(FUSED.workload(search=few), NPU).summary()["latency_ms"] > 0


def test_language_models_score_every_label_of_every_hypothesis() -> None:
    one, eight = operators(Search()), operators(Search(beam=8))
    for name in ("external_lm.lstm.0/hidden", "source_lm.output", "predictor.lstm/input", "joiner.output"):
        assert eight[name].macs == 8 * one[name].macs, name
        assert eight[name].vectors == 8
    assert eight["encoder.lstm.0/input"] == one["encoder.lstm.0/input"]
    found = runs(price(FUSED.workload(search=Search(beam=8)), NPU))
    assert found["external_lm.lstm.0/hidden"] == found["source_lm.output"] == 48 / 4  # labels a second, one batch each
    assert found["joiner.output"] > found["predictor.lstm/input"] == 48 / 4


def test_weights_are_read_once_for_all_hypotheses() -> None:
    small = load_accelerator("edge_nna")  # no weight of the language model stays on chip
    one, eight = (
        {op.name: op for op in price(FUSED.workload(search=Search(beam=beam)), small).operators} for beam in (1, 8)
    )
    name = "external_lm.lstm.0/hidden"
    assert one[name].dram_bytes == eight[name].dram_bytes > 2048 * 512 // 2 * 0.9
    assert one[name].macs * 8 == eight[name].macs


def test_rates_of_a_time_synchronous_search() -> None:
    asked = operators(Search(beam=4, expansions=2, labels_per_hypothesis=3))
    joiner, predictor, scorer = (asked[n] for n in ("joiner.output", "predictor.lstm/cell", "external_lm.output"))
    assert (joiner.every_ms, joiner.per_label) == (45.0, 0)  # twice per joint frame of 90 ms, whatever is emitted
    assert (predictor.every_ms, predictor.per_label) == (None, 3.0)
    assert (scorer.every_ms, scorer.per_label) == (None, 3.0)
    found = runs(price(FUSED.workload(search=Search(expansions=2, labels_per_hypothesis=3)), NPU))
    assert found["joiner.output"] == (4.3 // 0.045) / 4  # with the silence after 4 s of speech
    assert found["source_lm.lstm.0/cell"] == 3 * 48 / 4


def test_batches_of_a_part_of_the_beam() -> None:
    """8 hypotheses get 0.75 labels each per label of the transcript: 6, in 3 batches of 2."""
    asked = operators(Search(beam=8, labels_per_hypothesis=0.75, batches_per_label=3))
    for name in ("predictor.lstm/hidden", "source_lm.output"):
        assert (asked[name].vectors, asked[name].per_label) == (2, 3.0)
    assert asked["joiner.output"].vectors == 8
    assert Search(beam=10, labels_per_hypothesis=1.1, batches_per_label=1.1).batch == 10  # not 11, by rounding
    assert Search(beam=10, batches_per_label=3).batch == 4
    assert (Search(beam=2, batches_per_label=3).batches, Search(beam=2, batches_per_label=3).batch) == (2, 1)


def test_without_a_search_a_model_has_its_own_rates() -> None:
    assert workload(DIGITS, {}, search=Search(1, None, 1.0)) == workload(DIGITS, {})


def test_a_file_has_a_search_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        SIZES.replace("beam: 2", "beam: 2\nexpansions: 3\nlabels_per_hypothesis: 1.5\nbatches_per_label: 2")
    )
    sizes = load_sizes(path)
    assert sizes.search == Search(2, 3, 1.5, 2)
    assert operators(Search(), sizes) == operators(Search(2, 3, 1.5, 2), sizes)
    assert operators(Search(beam=8), sizes) == operators(Search(8, 3, 1.5, 2), sizes)


def test_language_models_wait_where_the_decoder_does() -> None:
    """A bidirectional encoder is heard to the end before anything is decoded."""
    layer = LayerShape("encoder", "lstm", ((40, 8), (40, 10)) * 2, 80, 4, every_ms=20.0, frames=100, after_end=True)
    output = LayerShape("joiner.output", "linear", ((29, 20),), 29, 1, every_ms=20.0, per_label=1.0, after_end=True)
    late = Sizes("late", (layer, output), {}).fused_with(SCORER, "external_lm")
    assert all(operator.after_end for operator in late.workload().operators)
    assert not any(operator.after_end for operator in FUSED.workload().operators)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 40), st.floats(0.5, 4), st.floats(0.3, 8))
def test_more_search_never_costs_less(beam: int, more: int, expansions: float, labels: float) -> None:
    """Nor do more batches of the same labels."""

    def rtf(sizes: Sizes, *search: float) -> float:
        return price(sizes.workload(search=Search(*search)), NPU).rtf

    plain, fused = rtf(RECOGNIZER, beam, expansions, labels), rtf(FUSED, beam, expansions, labels)
    assert plain < fused <= rtf(FUSED, beam + more, expansions, labels) * (1 + 1e-9)
    assert fused <= rtf(FUSED, beam, expansions, labels + 1)
    assert fused <= rtf(FUSED, beam, expansions + 1, labels)
    assert fused <= rtf(FUSED, beam, expansions, labels, 2 * labels) * (1 + 1e-9)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return packed(tmp_path / "model.qst", DIGITS), packed(tmp_path / "lm.qst", LM)


def test_packed_files_are_priced_without_torch(files: tuple[Path, Path]) -> None:
    model, lm = files
    asked = ["simulate", str(model), "--beam", "8", "--lm", str(lm), "--source_lm", str(lm), "--json"]
    program = f"import sys; from qstudy.cli import main; main({asked}); assert 'torch' not in sys.modules"
    report = json.loads(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout)
    expected = price(FUSED.workload(search=Search(beam=8)), load_accelerator("edge_nna"))
    assert report["latency_ms"] == pytest.approx(expected.latency_ms)
    assert [op["name"] for op in report["operators"]] == [op.name for op in expected.operators]
    assert qstudy.simulate(model, beam=8, lm=lm, source_lm=lm).latency_ms == report["latency_ms"]


def test_a_language_model_alone_is_priced(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    simulate(files[1], json=True)
    report = json.loads(capsys.readouterr().out)
    assert {operator["runs"] for operator in report["operators"]} == {48 / 4}


def test_widths_of_language_models_alone(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    model, lm = files
    simulate(model, lm=lm, bits="external_lm.*=w8a8", json=True)
    widths = {op["layer"]: op["weight_bits"] for op in json.loads(capsys.readouterr().out)["operators"]}
    assert (widths["external_lm.lstm.0"], widths["joiner.output"]) == (8, 4)


def test_beams_are_those_of_single_simulations(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, lm = files
    picture = tmp_path / "beams.svg"
    beams(model, "mobile_npu", lm=lm, source_lm=lm, beams=(1, 8), expansions=1, json=True, plot=picture)
    curves = json.loads(capsys.readouterr().out)
    assert curves["beams"] == [1, 8]
    assert list(curves["latency_ms"]) == ["own widths", "FP16", "INT8", "INT4"]
    for bits, column in zip((None, "w16a16", "w8a8", "w4a4"), curves["latency_ms"].values(), strict=True):
        for beam, latency_ms in zip((1, 8), column, strict=True):
            simulate(model, "mobile_npu", lm=lm, source_lm=lm, beam=beam, expansions=1, bits=bits, json=True)
            assert json.loads(capsys.readouterr().out)["latency_ms"] == pytest.approx(latency_ms)
    assert all(name in picture.read_text() for name in ("FP16", "hypotheses"))


def test_widths_that_a_device_lacks_are_told(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = tmp_path / "int8.yaml"
    device.write_text(
        "processor: {clock_mhz: 500, rows: 8, columns: 8, dataflow: vector, modes: [{weight: 8, activation: 8}]}\n"
        "memory: {sram_kib: 512, sram_gb_per_s: 16, dram_gb_per_s: 4}\n"
    )
    beams(packed(tmp_path / "bare.qst", DIGITS[1:]), str(device), beams=(1,), bits="w8a8", plot=tmp_path / "b.png")
    said = capsys.readouterr().out
    assert "w8a8" in said
    assert said.count("unknown") == 1  # half precision


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lm": Path("model.qst")}, "external_lm: encoder.lstm.0 does not run per label alone"),
        ({"lm": Path("missing.qst")}, r"no model missing\.qst"),
        ({"lm": Path("lm.arpa")}, r"lm\.arpa: an n-gram model is looked up"),
        ({"lm": Path("lm.qst"), "bits": "source_lm.*=w4a4"}, "matches no layer"),
        ({"lm": Path("lm.qst"), "model": Path("encoder.yaml")}, "encoder has no layer that runs per label"),
        ({"source_lm": Path("lm.qst"), "model": Path("fused.yaml")}, r"fused has a layer source_lm\.output already"),
        ({"expansions": 0.0}, "expansions: 0"),
        ({"expansions": float("nan")}, "expansions: nan"),
        ({"labels_per_hypothesis": -0.5}, r"labels_per_hypothesis: -0\.5"),
        ({"batches_per_label": 0.5}, r"batches_per_label: 0\.5 must be at least labels_per_hypothesis, 1"),
    ],
    ids=str,
)
def test_mistakes(
    files: tuple[Path, Path], options: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files[0].parent)
    layer = "kind: linear, inputs: 8, outputs: 8"
    Path("lm.arpa").touch()
    Path("encoder.yaml").write_text(f"layers: [{{name: encoder, {layer}, every_ms: 30}}]")
    Path("fused.yaml").write_text(f"layers: [{{name: source_lm.output, {layer}, per_label: 1}}]")
    with pytest.raises(UserError, match=message):
        simulate(**{"model": Path("model.qst"), **options})  # type: ignore[arg-type]
