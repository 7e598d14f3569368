"""The contributor's page: every part that it prints is written to a file and used by the command below it."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import analysis_study as made
import pytest
import torch
import yaml
from tiny import run_config

from qstudy.cli import main
from qstudy.data.manifest import read_manifest
from qstudy.files import read_json
from qstudy.named import trusting
from qstudy.quant.integer.accumulator import recorded_accumulators
from qstudy.quant.packed.layer import PackedArithmetic
from qstudy.quant.packed.model import PackedModel
from qstudy.recognize.recognizer import recognizer_from_packed
from qstudy.training.checkpoint import recognizer_from_checkpoint
from qstudy.training.config import to_dict
from qstudy.yaml_file import load_yaml

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = {name: code for code, name in re.findall(r"```\w+\n(# (my_\w+\.\w+)\n.*?)```", PAGE, re.DOTALL)}
CODES = ["encoder.lstm.0.0.codes", "encoder.lstm.0.1.codes"]


def words(command: str, part: str) -> list[str]:
    """The printed command that uses `part`, in a folder with `run.yaml` and `run/`."""
    found = next(line for line in re.findall(rf"^qstudy ({command} .*)$", PAGE, re.MULTILINE) if part in line)
    found = found.replace("sweeps/base/commands.yaml", "run.yaml").replace("runs/NAME", "run")
    return shlex.split(found.replace("--start sweeps/base/commands.qst ", ""))  # which is no model of run.yaml


def train(folder: Path, arguments: Sequence[str]) -> str:
    """In a process of its own, which knows the user's file from his configuration alone; what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "qstudy", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the user works: the page's files, and `run/`, trained by its arithmetic."""
    folder = tmp_path_factory.mktemp("contributor")
    for name, code in FILES.items():
        (folder / name).write_text(code)
    (folder / "run.yaml").write_text(yaml.safe_dump(to_dict(run_config(corpus, folder))))
    said = train(folder, [*words("train", "my_shifts"), "--out", "run"])
    assert "Next: qstudy transcribe run/model.qst some.wav --trust my_shifts.py" in said
    return folder


@pytest.fixture(autouse=True)
def at_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process knows nothing of the user's files but what `--trust` says."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in FILES:
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
    known = {name: each for name, each in PackedArithmetic.known.items() if not name.startswith("my_")}
    monkeypatch.setattr(PackedArithmetic, "known", known)


def test_the_page_is_one_screen_of_parts() -> None:
    assert {"my_encoder.py", "my_shifts.py", "my_chip.yaml", "my_corpus.py", "my_tables.py"} <= set(FILES)
    assert max(len(code.splitlines()) for code in FILES.values()) < 60


def test_an_own_arithmetic_is_packed_under_its_import_path() -> None:
    file = PackedModel.load(Path("run/model.qst"))
    assert file.header["arithmetic"] == dict.fromkeys(["encoder.lstm.0"], "my_shifts.PackedShifts")
    assert read_json(Path("run/record.json"))["size_bytes"] == file.size_bytes
    assert {int(file.stored()["encoder.lstm.0"].integers(index).abs().max()) for index in (0, 1)} == {7}


def test_its_sums_are_those_of_training() -> None:
    """To the bit, for the input product; the recurrence is torch's here and a kernel's there."""
    with trusting(Path("my_shifts.py")):
        trained = recognizer_from_checkpoint(Path("run/last.ckpt")).model
        loaded = recognizer_from_packed(PackedModel.load(Path("run/model.qst"))).model
    features = torch.randn(1, 60, 8, generator=torch.Generator().manual_seed(0)).cumsum(1) - 8
    outputs, sums = [], []
    for model in (trained, loaded):
        with torch.no_grad(), recorded_accumulators() as recorded:
            outputs.append(model.encoder(features, torch.tensor([60]))[0])
        sums.append(recorded[0].flatten())
    assert torch.equal(*sums)
    assert sums[0].unique().numel() > 50
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-3)
    assert outputs[0].std() > 0.01


def test_it_is_evaluated_where_its_file_is_trusted(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(corpus / "test.jsonl") if word == "my.jsonl" else word for word in words("evaluate", "my_shifts")]
    main([*command, "--json"])
    scores = json.loads(capsys.readouterr().out)
    assert scores["utterances"] == 6


def test_a_language_model_of_it_is_used_where_its_file_is_trusted(
    folder: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, manifest = folder / "text.txt", corpus / "test.jsonl"
    text.write_text("\n".join(item.text for item in read_manifest(manifest)))
    sizes = ["--model.embedding", "8", "--model.hidden", "16", "--model.layers", "1"]
    policy = "{name: my_shifts.PowersOfTwoPolicy, layers: {'lstm.*': {weight: 4, activation: 8}}}"
    command = ["train-lm", "--text", str(text), *sizes]
    main([*command, "--like", "run/model.qst", "--training.steps", "2", "--out", "lm-float"])
    start = ["--start", "lm-float/model.qst", "--finetune.steps", "2", "--policy", policy]
    train(folder, [*command, *start, "--out", "lm"])
    trust, fused = ["--trust", "my_shifts.py"], ["--decode", "beam", "--beam", "2", "--lm", "lm/model.qst"]
    fused += ["--lm_weight", "0.3", "--json", *trust]
    capsys.readouterr()
    main(["evaluate", "run/model.qst", "--manifest", str(manifest), *fused])
    assert json.loads(capsys.readouterr().out)["lm"] == "lm/model.qst"
    main(["transcribe", "run/model.qst", str(read_manifest(manifest)[0].audio), *fused])
    assert json.loads(capsys.readouterr().out)["hypotheses"]
    main(["perplexity", "lm/model.qst", "--text", str(text), "--json", *trust])
    assert json.loads(capsys.readouterr().out)["texts"] == 6


@pytest.mark.parametrize("command", ["transcribe run/model.qst a.wav", "evaluate run/model.qst --manifest m.jsonl"])
def test_no_model_file_runs_it_by_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(command.split())
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "arithmetic.encoder.lstm.0" in said
    assert "--trust my_shifts.py" in said
    assert "my_shifts" not in sys.modules


def test_an_own_accelerator_prices_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    main([*words("simulate", "my_chip"), "--json"])
    priced = json.loads(capsys.readouterr().out)
    assert priced["latency_ms"] > 0


def test_an_own_corpus_is_made_and_trained_on(folder: Path, corpus: Path) -> None:
    for split in ("train", "dev"):
        (folder / "sounds" / split).mkdir(parents=True)
        for each in read_manifest(corpus / f"{split}.jsonl"):
            shutil.copy(each.audio, folder / "sounds" / split / f"{each.text}{each.audio.suffix}")
    base = {**to_dict(run_config(corpus, folder)), "data": load_yaml(ROOT / "sweeps/base/commands.yaml")["data"]}
    (folder / "own.yaml").write_text(yaml.safe_dump(base))
    command = ["own.yaml" if word == "run.yaml" else word for word in words("train", "my_corpus")]
    main([*command, "--out", "own", "--policy", "{name: float}"])
    made = read_manifest(folder / "my" / "train.jsonl")
    assert {each.text for each in made} == {each.text for each in read_manifest(corpus / "train.jsonl")}
    assert read_json(folder / "own" / "record.json")["metrics"]["dev"]["utterances"] > 1


def test_an_own_table_and_figure_are_in_the_report(folder: Path) -> None:
    study = made.write(folder / "study", made.records())
    command = [str(study) if word == "studies/quickstart" else word for word in words("report", "my_tables")]
    main(command)
    out = folder / "reports" / "quickstart"
    rows = list(csv.DictReader((out / "smallest.csv").open()))
    assert [int(row["size_bytes"]) for row in rows] == sorted(one["size_bytes"] for one in made.records()[1:26])[:3]
    page = (out / "index.html").read_text()
    assert {"latency_by_size.pdf", "smallest.tex"} <= {path.name for path in out.iterdir()}
    assert "The smallest models</h2>" in page
    assert 'id="latency_by_size"' in page


@pytest.mark.parametrize(("option", "given"), [("table", "smallest"), ("figure", "my_tables.nothing")])
def test_one_that_is_not_there_is_named(
    folder: Path, option: str, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(folder), f"--{option}", given])
    assert stopped.value.code == 2
    assert f"{option}: '{given}'" in capsys.readouterr().err
