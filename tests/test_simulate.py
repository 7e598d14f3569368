"""The command `qstudy simulate`, on every kind of file it reads."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from digits_shapes import DIGITS
from test_workload import SIZES

from qstudy.bits import LayerBits, LayerShape, resolve
from qstudy.commands.beams import beams
from qstudy.commands.simulate import simulate
from qstudy.data.tokenizer import SentencePieceTokenizer
from qstudy.errors import UserError
from qstudy.hardware.accelerator import PROFILES
from qstudy.hardware.size import layer_bytes
from qstudy.quant.packed.file import describe_layers, read, write
from qstudy.workloads import speech_of


@pytest.fixture
def sizes(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SIZES)
    return path


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return packed_file(tmp_path, {"weight": 4, "activation": 8})


def packed_file(folder: Path, every_layer: dict[str, object]) -> Path:
    """The header of a packed model of the digits' sizes."""
    bits = resolve({"*": every_layer}, DIGITS)
    path = folder / "model.qst"
    arrays = {f"{s.name}.all": np.zeros(layer_bytes(s, bits.get(s.name, LayerBits())), np.uint8) for s in DIGITS}
    write(path, arrays, describe_layers(DIGITS, bits))
    return path


def test_tables(sizes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    simulate(sizes)
    text = capsys.readouterr().out
    assert "encoder.lstm.2" in text
    assert "W4A8" in text
    assert "user-perceived latency" in text
    simulate(sizes, operators=True)
    assert "encoder.lstm.2/cell" in capsys.readouterr().out


def test_json_of_a_packed_model(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulate(packed, json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["accelerator"] == "edge_nna"
    assert report["rtf"] == pytest.approx(sum(operator["load"] for operator in report["operators"]))


@pytest.mark.parametrize("what", ["w2a8", "encoder.*=w3a8,joiner.*=w8a8", "sizes", "profile", "cortex_a76"])
def test_compare(packed: Path, sizes: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    compare = {"sizes": str(sizes), "profile": str(PROFILES / "edge_nna.yaml")}.get(what, what)
    simulate(packed, json=True, compare=compare)
    first, second = json.loads(capsys.readouterr().out)
    assert first["model"] == "model"
    if what in ("w2a8", "cortex_a76"):
        assert second["latency_ms"] != first["latency_ms"]
    if what == "profile":
        assert second["latency_ms"] == first["latency_ms"]
    simulate(packed, compare=compare)
    assert "ratio" in capsys.readouterr().out


def test_bits_beam_and_manifest(sizes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"audio_filepath": "a.wav", "duration": d, "text": "seven nine"} for d in (1.0, 2.0, 30.0)]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    simulate(sizes, json=True, bits="w8a8", manifest=manifest)
    greedy = json.loads(capsys.readouterr().out)
    simulate(sizes, json=True, bits="w8a8", manifest=manifest, beam=16)
    beam = json.loads(capsys.readouterr().out)
    assert {operator["weight_bits"] for operator in greedy["operators"]} == {8}
    assert beam["latency_ms"] > greedy["latency_ms"]


def test_labels_are_counted_as_the_model_has_them(
    packed: Path, sizes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, manifest = "seven nine seven nine", tmp_path / "m.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": "a.wav", "duration": 2, "text": text}))
    pieces = SentencePieceTokenizer.train(["seven nine", "seven seven nine"] * 5, 16)
    count = len(pieces.encode(text))
    assert count < len(text) / 2
    for model in (packed, sizes):
        assert speech_of(manifest, model).labels == (len(text),)
    contents, own = read(packed), tmp_path / "pieces.qst"
    header = {**describe_layers(DIGITS, contents.bit_map), "tokenizer": pieces.to_dict()}
    write(own, contents.arrays, header)
    assert speech_of(manifest, own).labels == (count,)
    simulate(own, manifest=manifest, json=True)
    report = json.loads(capsys.readouterr().out)
    (runs,) = (each["runs"] for each in report["operators"] if each["name"] == "predictor.lstm/cell")
    assert runs == count / 2
    monkeypatch.setattr("qstudy.training.load.load_tokenizer", lambda path: pieces)
    assert speech_of(manifest, tmp_path / "a.ckpt").labels == (count,)
    manifest.write_text(json.dumps({"audio_filepath": "a.wav", "duration": 2, "text": "four"}))
    with pytest.raises(UserError, match=r"m\.jsonl:1: The character 'f' in the text 'four' is outside"):
        beams(own, manifest=manifest)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_plot(sizes: Path, tmp_path: Path, suffix: str) -> None:
    picture = tmp_path / f"plot{suffix}"
    simulate(sizes, compare="w2a8", plot=picture)
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": "w4"}, "w4a8"),
        ({"bits": "w9a8"}, "9 bits"),
        ({"bits": "w²a8"}, "w4a8"),
        ({"bits": "w4a"}, "w4a8"),
        ({"bits": ""}, "w4a8"),
        ({"bits": "w4a8,,"}, "w4a8"),
        ({"bits": "w99999999999a8"}, "w4a8"),
        ({"beam": 0}, "beam: 0"),
        ({"beam": -1}, "beam: -1"),
        ({"beam": 10**9}, "beam: 1000000000"),
        ({"compare": ""}, "no model"),
        ({"compare": "*=w3"}, "w4a8"),
        ({"accelerator": "nothing.yaml"}, "nothing.yaml"),
        ({"manifest": Path("nothing.jsonl")}, "nothing.jsonl"),
        ({"bits": "nothing.*=w4a8"}, "matches no layer"),
        ({"compare": "nonsense"}, "nonsense"),
        ({"compare": ",".join(["nothing.*=w4a8"] * 30)}, "matches no layer"),  # too long for a file's name
        ({"accelerator": "x" * 300}, "No accelerator"),
        ({"accelerator": "tpu"}, "tpu"),
        ({"plot": Path("plot.txt")}, "plot.txt"),
    ],
)
def test_mistakes(sizes: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        simulate(sizes, **options)  # type: ignore[arg-type]


def test_a_mistaken_plot_is_told_before_anything_is_computed(sizes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="plot"):
        simulate(sizes, plot=Path("plot.txt"))
    assert capsys.readouterr().out == ""


def test_other_widths_for_some_layers_leave_the_others_as_they_are(
    packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate(packed, json=True, bits="joiner.*=w8a8", compare="encoder.*=w2a8")
    first, second = json.loads(capsys.readouterr().out)
    for report, (prefix, weight), others in ((first, ("joiner", 8), 4), (second, ("encoder", 2), None)):
        for operator in report["operators"]:
            own = operator["layer"].startswith(prefix) and operator["layer"] != "encoder.normalize"
            expected = weight if own else others
            if expected and operator["layer"] != "encoder.normalize":
                assert (operator["weight_bits"], operator["activation_bits"]) == (expected, 8), operator["name"]
    widths = {operator["layer"]: operator["weight_bits"] for operator in second["operators"]}
    assert (widths["joiner.output"], widths["predictor.lstm"], widths["encoder.lstm.0"]) == (8, 4, 2)


def test_other_widths_keep_codebooks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their tables are less than the scales of every row."""
    codebook = packed_file(tmp_path, {"weight": 4, "activation": 8, "quantizer": "codebook"})
    simulate(codebook, json=True, bits="w3a8")
    bytes_read = json.loads(capsys.readouterr().out)["dram_mb_per_s"]
    simulate(packed_file(tmp_path, {"weight": 3, "activation": 8}), json=True)
    assert bytes_read < json.loads(capsys.readouterr().out)["dram_mb_per_s"]


def test_names_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a[b].yaml"
    path.write_text(r"layers: [{name: '[/b] $\nothing$', kind: linear, inputs: 8, outputs: 8, every_ms: 30}]")
    simulate(path, plot=tmp_path / "plot.svg")
    assert r"[/b] $\nothing$" in capsys.readouterr().out


def test_files_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model"):
        simulate(tmp_path / "missing.qst")
    broken = tmp_path / "broken.qst"
    broken.write_bytes(b"\x00" * 20)
    with pytest.raises(UserError, match="packed"):
        simulate(broken)
    run = tmp_path / "run.yaml"
    run.write_text("{data: {train: a.jsonl, dev: b.jsonl}, features: {bins: 0}}")
    with pytest.raises(UserError, match=r"run\.yaml: .*bins: 0"):
        simulate(run)


def test_a_yaml_that_says_it_is_a_configuration_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes may come from anyone, and who reads them cannot tell by the name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('owned').touch()\nclass J: pass\n")
    (tmp_path / "sizes.yaml").write_text("{data: {train: a.jsonl, dev: b.jsonl}, model: {encoder: {name: evil.J}}}")
    with pytest.raises(UserError, match=r"sizes\.yaml asks for the code 'evil.J'.*--trust evil\.py"):
        simulate(Path("sizes.yaml"))
    assert not Path("owned").exists()
    with pytest.raises(UserError, match=r"is not a class that derives from"):
        simulate(Path("sizes.yaml"), trust=Path("evil.py"))
    assert Path("owned").exists()


def test_a_changed_header_is_not_priced(packed: Path) -> None:
    content = packed.read_bytes()
    packed.write_bytes(content.replace(b'\\"weight\\": 4', b'\\"weight\\": 2', 1))
    assert packed.read_bytes() != content
    with pytest.raises(UserError, match="damaged"):
        simulate(packed)


def test_other_widths_leave_operators_where_they_were_placed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A packed file's header says where its policy placed them."""
    path = packed_file(tmp_path, {"weight": 8, "activation": 8, "placement": "products"})
    simulate(path, json=True, bits="w2a8")
    operators = json.loads(capsys.readouterr().out)["operators"]
    assert {op["weight_bits"] for op in operators} == {2}
    assert {op["name"] for op in operators if op["processor"] == "cpu"} == {
        op["name"] for op in operators if op["name"].endswith("/cell")
    }


@pytest.mark.parametrize(("units", "on_cpu"), [("integers", True), ("floats", False)])
def test_units_that_compute_in_floats_keep_error_prone_operators(
    units: str, on_cpu: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = packed_file(tmp_path, {"weight": 8, "activation": 8, "placement": "products"})
    raw = yaml.safe_load((PROFILES / "edge_nna.yaml").read_text())
    raw["processor"]["elementwise_in"] = units
    (tmp_path / "device.yaml").write_text(yaml.safe_dump(raw))
    simulate(path, accelerator=str(tmp_path / "device.yaml"), json=True)
    operators = json.loads(capsys.readouterr().out)["operators"]
    assert any(op["processor"] == "cpu" for op in operators) is on_cpu


@pytest.mark.parametrize("columns", ["160", "80"])
def test_a_model_whose_layers_have_no_rate(
    columns: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    path = tmp_path / "model.qst"
    shape = LayerShape("l", "linear", ((8, 8),), 8, 1)
    bits = resolve({"*": {"weight": 4}}, [shape])
    write(path, {"l.all": np.zeros(layer_bytes(shape, bits["l"]), np.uint8)}, describe_layers([shape], bits))
    simulate(path, plot=tmp_path / "picture.svg")
    told = " ".join(capsys.readouterr().out.split())
    assert "user-perceived latency, ms │ unknown" in told
    assert "no rate is set for these layers: l." in told
    assert "latency unknown" in (tmp_path / "picture.svg").read_text()
    simulate(path, json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["latency_ms"] is report["operators"][0]["runs"] is None
    simulate(path, compare="w8a8")
    assert "unknown" in capsys.readouterr().out
