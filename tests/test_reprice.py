"""Finished runs at today's prices."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import run_config

from qstudy.cli import main
from qstudy.files import read_json
from qstudy.training import rescore as rescoring
from qstudy.training.price import price_layers
from qstudy.training.record import read_record, write_record
from qstudy.training.reprice import reprice
from qstudy.training.run import run

POLICY = {"name": "native_int", "layers": {"*": {"weight": 4, "activation": 8}}}


@pytest.fixture(scope="module")
def accelerator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of the user's own."""
    profile = yaml.safe_load((Path(__file__).parents[1] / "qstudy/hardware/profiles/edge_nna.yaml").read_text())
    path = tmp_path_factory.mktemp("profiles") / "mine.yaml"
    path.write_text(yaml.safe_dump(profile))
    return path


@pytest.fixture(scope="module")
def finished(corpus: Path, accelerator: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of few steps."""
    folder = tmp_path_factory.mktemp("runs")
    steps = {"steps": 2}
    config = run_config(corpus, folder, policy=POLICY, accelerator=[str(accelerator)], training=steps, finetune=steps)
    run(config, folder / "mine", name="mine")
    return folder


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(["reprice", *arguments])
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_a_changed_accelerator_changes_the_latency_alone(
    finished: Path, accelerator: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished / "mine/record.json"
    before = json.loads(path.read_text())
    assert "0 of 1 runs" in said(capsys, str(finished))
    assert json.loads(path.read_text()) == before
    profile = yaml.safe_load(accelerator.read_text())
    profile["cpu"]["clock_mhz"] /= 2
    accelerator.write_text(yaml.safe_dump(profile))
    assert "1 of 1 runs" in said(capsys, str(finished / "mine"))
    after = json.loads(path.read_text())
    for then, later in ((before, after), (before["baseline"], after["baseline"])):
        (was,), (now,) = then.pop("latency").values(), later.pop("latency").values()
        assert now["latency_ms"] > was["latency_ms"]
    assert after == before
    read_record(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"accelerator": ["gone.yaml"]}, "gone.yaml"),
        ({"policy": {"name": "subprocess.Popen"}}, "--trust"),
        ({"policy": {"name": "native_int", "layers": {"nothing": {"weight": 4}}}}, "nothing"),
    ],
    ids=str,
)
def test_what_a_record_asks_for_must_be_there(
    change: dict[str, Any], named: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("record.json", "model.qst"):
        (tmp_path / name).write_bytes((finished / "mine" / name).read_bytes())
    record = json.loads((tmp_path / "record.json").read_text())
    record["config"] |= change
    (tmp_path / "record.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit) as stopped:
        main(["reprice", str(tmp_path)])
    complaint = capsys.readouterr().err
    assert stopped.value.code == 2
    assert named in complaint
    assert str(tmp_path / "record.json") in complaint
    assert complaint.count("\n") == 1


def test_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["reprice", str(tmp_path)])
    assert f"{tmp_path} holds no finished run" in capsys.readouterr().err


def test_a_report_is_priced_without_models(
    finished: Path, accelerator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its lines stay what they are where nothing changed."""
    values = read_json(finished / "mine/record.json")
    search = {"searches": {}, "files": {"model": "gone.qst"}}
    lines = [
        json.dumps({**values, "run": f"run{n}", "config": c}) for n, c in enumerate((values["config"], None, search))
    ]
    (tmp_path / "records.jsonl").write_text("\n".join(lines) + "\n")
    told = said(capsys, str(tmp_path))
    assert "0 of 3 runs" in told
    assert "\n2 stay as they are" in told
    assert (tmp_path / "records.jsonl").read_text().splitlines() == lines
    old = {**values, "latency": {str(accelerator): {"latency_ms": 1234.5, "rtf": 1.0}}}
    (tmp_path / "records.jsonl").write_text(json.dumps(old) + "\n")
    told = said(capsys, str(tmp_path))
    assert "1234.50 ms ->" in told
    assert "1 of 1 runs" in told
    now = json.loads((tmp_path / "records.jsonl").read_text())
    assert now["latency"] == values["latency"]
    assert now["metrics"] == values["metrics"]
    wrong = {**values, "latency": {key: {**totals, "rtf": 9.0} for key, totals in values["latency"].items()}}
    (tmp_path / "records.jsonl").write_text(json.dumps(wrong) + "\n")
    said(capsys, str(tmp_path))
    assert json.loads((tmp_path / "records.jsonl").read_text())["latency"] == values["latency"]


def test_lines_of_a_report(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Blank ones stay, a line that Unicode alone sees within a text is none, and bytes that are no text are told of."""
    values = {
        **read_json(finished / "mine/record.json"),
        "config": None,
        "samples": [{"reference": "a\u2028b", "hypothesis": ""}],
    }
    report, line = tmp_path / "records.jsonl", json.dumps(values, ensure_ascii=False)
    report.write_text(f"{line}\n\n{line}\n", encoding="utf-8")
    before = report.read_bytes()
    assert "2 stay as they are" in said(capsys, str(tmp_path))
    assert report.read_bytes() == before
    report.write_bytes(before + b"\xff\n")
    with pytest.raises(SystemExit) as stopped:
        main(["reprice", str(tmp_path)])
    assert stopped.value.code == 2
    assert f"{report}:4 is not UTF-8 text" in capsys.readouterr().err
    assert report.read_bytes() == before + b"\xff\n"


def test_a_run_whose_record_came_along_is_priced_without_its_model(
    finished: Path, accelerator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = read_json(finished / "mine/record.json")
    (tmp_path / "mine").mkdir()
    old = {**values, "latency": {str(accelerator): {"latency_ms": 1234.5, "rtf": 1.0}}}
    (tmp_path / "mine/record.json").write_text(json.dumps(old))
    assert "1 of 1 runs" in said(capsys, str(tmp_path))
    assert read_json(tmp_path / "mine/record.json")["latency"] == values["latency"]
    main(["rescore", str(tmp_path), "--sets", "{more: more.jsonl}"])
    assert "1 stay as they are" in capsys.readouterr().out


def test_more_sets_are_scored_once(
    finished: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the packed model; the record keeps rates, errors by utterance, and where the set lies."""
    again = tmp_path / "mine"
    shutil.copytree(finished / "mine", again)
    sets = json.dumps({"again": str(corpus / "dev.jsonl")})
    main(["rescore", str(again), "--sets", sets, "--cache", str(finished / "cache")])
    record = read_record(again / "record.json")
    assert record.metrics is not None
    assert record.metrics["again"]["wer"] == record.metrics["dev"]["wer"]
    assert record.utterances is not None
    assert record.utterances["again"] == record.utterances["dev"]
    assert record.config is not None
    assert record.config["data"]["test"]["again"] == str(corpus / "dev.jsonl")
    main(["rescore", str(again), "--sets", sets])
    assert "0 of 1 runs" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["rescore", str(again), "--sets", json.dumps({"again": str(corpus / "train.jsonl")})])
    assert "the record has a set of this name already" in capsys.readouterr().err


def test_language_models_beside_runs_are_left_out(
    finished: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their records are of another kind, and sound."""
    shutil.copytree(finished / "mine", tmp_path / "mine")
    (tmp_path / "lm").mkdir()
    language = json.dumps({"kind": "language model", "run": "lm"})
    (tmp_path / "lm" / "record.json").write_text(language)
    (tmp_path / "lm" / "model.qst").touch()
    told = said(capsys, str(tmp_path))
    assert "of 1 runs" in told
    assert "1 left out, of language models" in told
    sets = json.dumps({"again": str(corpus / "dev.jsonl")})
    main(["rescore", str(tmp_path), "--sets", sets, "--cache", str(finished / "cache")])
    told = capsys.readouterr().out
    assert "1 of 1 runs" in told
    assert "1 left out, of language models" in told
    assert (tmp_path / "lm" / "record.json").read_text() == language


def test_a_run_with_code_of_the_users_own_is_scored_where_it_is_trusted(
    finished: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "from qstudy.model.encoders import LSTMEncoder\n\n\nclass Mine(LSTMEncoder):\n    pass\n"
    (tmp_path / "rescored_encoder.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    encoder = {"name": "rescored_encoder.Mine", "hidden": 8, "layers": 1, "stack": 3, "reduction": 3}
    config = run_config(corpus, tmp_path, model={"encoder": encoder}, training={"steps": 1})
    run(config, tmp_path / "own", name="own")
    monkeypatch.setattr("qstudy.named._named_by_user", set())  # as in another process, which knows nothing of it
    monkeypatch.delitem(sys.modules, "rescored_encoder")
    command = ["rescore", str(tmp_path / "own"), "--sets", json.dumps({"again": str(corpus / "dev.jsonl")})]
    command += ["--cache", str(tmp_path / "cache")]
    with pytest.raises(SystemExit):
        main(command)
    assert "--trust" in capsys.readouterr().err
    main([*command, "--trust", str(tmp_path / "rescored_encoder.py")])
    assert "again" in read_record(tmp_path / "own" / "record.json").metrics


@pytest.mark.parametrize("other", ["rescore", "reprice"])
def test_what_others_write_into_a_record_meanwhile_stays(
    other: str, finished: Path, corpus: Path, accelerator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two commands at once: neither's record is from before the other's."""
    again, cache = tmp_path / "mine", finished / "cache"
    shutil.copytree(finished / "mine", again)
    stale = {str(accelerator): {"latency_ms": 1234.5, "rtf": 1.0}}
    write_record(again, replace(read_record(again / "record.json"), latency=stale))
    scored = rescoring._scored

    def slowly(*arguments: Any) -> Any:
        monkeypatch.setattr(rescoring, "_scored", scored)
        if other == "reprice":
            main(["reprice", str(again)])
        else:
            rescoring.rescore(again, {"first": corpus / "dev.jsonl"}, cache)
        return scored(*arguments)

    monkeypatch.setattr(rescoring, "_scored", slowly)
    rescoring.rescore(again, {"second": corpus / "test.jsonl"}, cache)
    record = read_record(again / "record.json")
    assert {"dev", "second"} <= set(record.metrics)
    assert ("first" in record.metrics) == ("first" in record.config["data"]["test"]) == (other == "rescore")
    assert (record.latency == stale) == (other == "rescore")


def test_a_price_leaves_what_was_scored_meanwhile(
    finished: Path, accelerator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "mine"
    shutil.copytree(finished / "mine", again)
    stale = {str(accelerator): {"latency_ms": 1234.5, "rtf": 1.0}}
    write_record(again, replace(read_record(again / "record.json"), latency=stale))

    def slowly(*arguments: Any) -> Any:
        write_record(again, replace(read_record(again / "record.json"), training_model_wer=0.75))
        return price_layers(*arguments)

    monkeypatch.setattr("qstudy.training.reprice.price_layers", slowly)
    reprice(again)
    record = read_record(again / "record.json")
    assert record.training_model_wer == 0.75
    assert record.latency != stale
