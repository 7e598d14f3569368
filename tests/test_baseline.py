"""The float baseline: trained once or given as a file, and scored on the sets at hand."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny import run_config

from qstudy.cli import main
from qstudy.data.manifest import read_manifest, write_manifest
from qstudy.errors import UserError
from qstudy.files import read_json
from qstudy.model import RNNT
from qstudy.quant.packed.model import PackedModel, fill_float, fill_packed
from qstudy.training.baseline import trained_folder
from qstudy.training.checkpoint import steps_done
from qstudy.training.config import RunConfig, to_dict
from qstudy.training.run import float_baseline, prepare, run

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[1]
PTQ: dict[str, Any] = {"name": "ptq", "layers": {"*": {"weight": 8}}}


@pytest.fixture(scope="module")
def float_run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a float run: `model.qst`, `last.ckpt`, `record.json`."""
    work = tmp_path_factory.mktemp("float")
    run(run_config(corpus, work), work / "run", name="float")
    return work / "run"


@pytest.fixture(scope="module")
def eight_bits(corpus: Path, float_run: Path) -> Path:
    """The same model packed at eight bits."""
    work = float_run.parent
    run(run_config(corpus, work, policy=PTQ, start=str(float_run / "last.ckpt")), work / "ptq", name="ptq")
    return work / "ptq" / "model.qst"


def folders(work: Path) -> list[str]:
    return sorted(path.parent.name for path in (work / "cache" / "baselines").glob("*/record.json"))


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return PackedModel.load(path).tensors


def test_a_checkpoint_as_start_is_the_float_model(corpus: Path, float_run: Path, tmp_path: Path) -> None:
    folder = float_baseline(run_config(corpus, tmp_path, policy=PTQ, start=str(float_run / "last.ckpt")))
    before, after = tensors(float_run / "model.qst"), tensors(folder / "model.qst")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    first, second = read_json(float_run / "record.json"), read_json(folder / "record.json")
    assert first["metrics"]["dev"]["wer"] == second["metrics"]["dev"]["wer"]
    assert first["utterances"] == second["utterances"]
    assert first["size_bytes"] == second["size_bytes"]


def test_a_packed_model_as_start_is_what_its_integers_say(corpus: Path, eight_bits: Path, tmp_path: Path) -> None:
    data = {"test": {"other": str(corpus / "test.jsonl")}}
    config = run_config(corpus, tmp_path, policy=PTQ, start=str(eight_bits), data=data)
    record = run(config, tmp_path / "run", name="ptq")
    (folder,) = folders(tmp_path)
    baseline = read_json(tmp_path / "cache" / "baselines" / folder / "record.json")
    assert record.baseline["id"] == baseline["run"]
    assert baseline["run"].startswith("model-")
    assert list(record.baseline["metrics"]) == ["dev", "other"]
    assert record.baseline["size_bytes"] == baseline["size_bytes"] > 3 * record.size_bytes

    served, again = (RNNT(config.model, config.features, 29) for _ in range(2))
    fill_packed(served, PackedModel.load(eight_bits))
    fill_float(again, served)
    found = tensors(tmp_path / "cache" / "baselines" / folder / "model.qst")
    assert torch.equal(found["encoder.lstm.0.0.float"], again.encoder.lstm[0].weight_ih_l0)
    # rounding what is rounded already changes nothing
    assert torch.equal(
        tensors(eight_bits)["encoder.lstm.0.0.codes"], tensors(tmp_path / "run/model.qst")["encoder.lstm.0.0.codes"]
    )


def test_contents_count_not_paths(corpus: Path, float_run: Path, eight_bits: Path, tmp_path: Path) -> None:
    file = tmp_path / "start.qst"
    file.write_bytes(eight_bits.read_bytes())
    config = run_config(corpus, tmp_path, policy=PTQ, start=str(file))
    assert float_baseline(config) == float_baseline(run_config(corpus, tmp_path, policy=PTQ, start=str(eight_bits)))
    file.write_bytes((float_run / "model.qst").read_bytes())
    float_baseline(config)
    assert len(folders(tmp_path)) == 2


def test_a_run_does_not_go_on_from_another_trained_baseline(corpus: Path, tmp_path: Path) -> None:
    schedule = {"steps": 2, "batch_size": 8, "precision": "32-true"}
    config = run_config(corpus, tmp_path, policy={**PTQ, "name": "fake_qat"}, training=schedule, start="baseline")
    run(config, tmp_path / "run", name="qat")
    (tmp_path / "run" / "record.json").unlink()
    often = run_config(
        corpus,
        tmp_path,
        policy={**PTQ, "name": "fake_qat"},
        training={**schedule, "evaluate_every": 1, "checkpoint_every": 1},
        start="baseline",
    )
    assert trained_folder(often) == trained_folder(config)
    assert steps_done(tmp_path / "run" / "last.ckpt", often) == 12  # neither changes what is trained
    longer = run_config(
        corpus, tmp_path, policy={**PTQ, "name": "fake_qat"}, training={**schedule, "steps": 3}, start="baseline"
    )
    with pytest.raises(UserError, match=r"last\.ckpt is of a run with another training"):
        run(longer, tmp_path / "run", name="qat")


def test_a_run_does_not_go_on_from_another_start(
    corpus: Path, float_run: Path, eight_bits: Path, tmp_path: Path
) -> None:
    file = tmp_path / "start.qst"
    file.write_bytes(eight_bits.read_bytes())
    config = run_config(corpus, tmp_path, policy={**PTQ, "name": "fake_qat"}, start=str(file))
    run(config, tmp_path / "run", name="qat")
    (tmp_path / "run" / "record.json").unlink()
    run(config, tmp_path / "run", name="qat")  # killed before its record: it goes on
    file.write_bytes((float_run / "model.qst").read_bytes())
    with pytest.raises(UserError, match=r"last\.ckpt is of a run with another start"):
        run(config, tmp_path / "run", name="qat")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": {"joiner": {"hidden": 24}}}, r"model\.joiner\.hidden \(16 there, 24 here\)"),
        ({"model": {"encoder": {"name": "lstm", "hidden": 24, "layers": 2}}}, r"encoder\.layers \(1 there, 2 here\)"),
        ({"features": {"hop_ms": 12.5}}, r"features\.hop_ms \(10\.0 there, 12\.5 here\)"),
        ({"tokenizer": {"name": "characters", "alphabet": " 'abcdefghijklmnopqrstuvwxyz-"}}, "in tokenizer;"),
    ],
    ids=["joiner", "encoder", "features", "tokenizer"],
)
def test_a_start_that_does_not_fit(
    corpus: Path, float_run: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    config = run_config(corpus, tmp_path, policy=PTQ, start=str(float_run / "model.qst"), **changes)
    with pytest.raises(UserError, match=named):
        float_baseline(config)
    assert folders(tmp_path) == []


def test_dropout_and_defaults_are_no_difference(corpus: Path, float_run: Path, tmp_path: Path) -> None:
    encoder = {"name": "lstm", "hidden": 24, "layers": 1, "stack": 3, "reduction": 3, "running_mean": 0, "dropout": 0.1}
    config = run_config(corpus, tmp_path, policy=PTQ, start=str(float_run / "model.qst"), model={"encoder": encoder})
    assert (float_baseline(config) / "model.qst").exists()


def test_a_start_that_is_not_there(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"start: there is no model file gone\.qst .*--fresh.*--start baseline"):
        float_baseline(run_config(corpus, tmp_path, policy=PTQ, start="gone.qst"))


@pytest.mark.parametrize(
    ("start", "joiner", "named"), [("gone.qst", 16, "no model file .*gone"), ("model.qst", 24, r"joiner\.hidden")]
)
def test_a_start_of_no_use_shows_before_a_corpus_is_made(
    float_run: Path, tmp_path: Path, start: str, joiner: int, named: str
) -> None:
    out = tmp_path / "corpus"
    make = {"corpus": "commands", "out": str(out), "train": 4, "dev": 2, "test": 2, "processes": 1}
    changes = {"start": str(float_run / start), "model": {"joiner": {"hidden": joiner}}}
    config = run_config(out, tmp_path, policy=PTQ, data={"make": make}, **changes)
    with pytest.raises(UserError, match=named):
        run(config, tmp_path / "run", name="ptq")
    with pytest.raises(UserError, match=named):
        prepare(config)
    assert not out.exists()


def test_a_baseline_stays_as_long_as_a_run_needs_it(
    corpus: Path, float_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_config(corpus, tmp_path, policy=PTQ, start=str(float_run / "model.qst"))
    folder = float_baseline(config)
    prune = ["cache", "--cache", str(tmp_path / "cache"), "--prune", "--days", "0", "--json"]
    main(prune)
    found = {entry["folder"]: entry["state"] for entry in json.loads(capsys.readouterr().out)["entries"]}
    assert found[str(folder)] == "in use"
    assert (folder / "record.json").exists()
    del config
    main(prune)
    assert not folder.exists()


def test_other_sets_are_scored_anew_without_training(corpus: Path, tmp_path: Path) -> None:
    trained = float_baseline(run_config(corpus, tmp_path))
    written = (trained / "model.qst").stat().st_mtime_ns
    other = run_config(
        corpus, tmp_path, data={"dev": str(corpus / "test.jsonl"), "test": {"new": str(corpus / "dev.jsonl")}}
    )
    scored = float_baseline(other)
    assert scored != trained
    assert float_baseline(other) == scored
    assert float_baseline(run_config(corpus, tmp_path)) == trained
    assert (trained / "model.qst").stat().st_mtime_ns == written
    before, after = (read_json(folder / "record.json") for folder in (trained, scored))
    assert before["run"] == after["run"]
    assert list(after["metrics"]) == ["dev", "new"]
    assert after["metrics"]["new"]["wer"] == before["metrics"]["dev"]["wer"]
    assert after["metrics"]["dev"]["words"] != before["metrics"]["dev"]["words"]
    assert all(torch.equal(tensors(trained / "model.qst")[k], v) for k, v in tensors(scored / "model.qst").items())


def test_a_record_never_shows_the_scores_of_another_set(corpus: Path, tmp_path: Path) -> None:
    """The same path and training set, but the test manifest was written over: its baseline is scored on it too."""
    manifest = tmp_path / "test.jsonl"
    write_manifest(manifest, read_manifest(corpus / "test.jsonl"))
    config = run_config(corpus, tmp_path, policy=PTQ, data={"test": {"new": str(manifest)}})
    first = run(config, tmp_path / "first", name="first")
    write_manifest(manifest, read_manifest(corpus / "test.jsonl")[:3])
    second = run(config, tmp_path / "second", name="second")
    for record, count in ((first, 6), (second, 3)):
        own, baseline = record.metrics["new"], record.baseline["metrics"]["new"]
        assert (own["utterances"], own["words"]) == (baseline["utterances"], baseline["words"])
        assert own["utterances"] == len(record.baseline["utterances"]["new"]["words"].split()) == count
    assert first.baseline["id"] == second.baseline["id"]


def written_yaml(config: RunConfig, path: Path) -> str:
    path.write_text(yaml.safe_dump(to_dict(config)))
    return str(path)


def test_a_float_model_that_was_trained_is_the_baseline(corpus: Path, tmp_path: Path) -> None:
    """`qstudy train`, then a policy with the same settings: one training from scratch."""
    config = written_yaml(run_config(corpus, tmp_path), tmp_path / "run.yaml")
    main(["train", "--config", config, "--out", str(tmp_path / "float"), "--name", "mine"])
    (folder,) = folders(tmp_path)
    assert (tmp_path / "float/model.qst").read_bytes() == (
        tmp_path / "cache/baselines" / folder / "model.qst"
    ).read_bytes()
    main(["train", "--config", config, "--out", str(tmp_path / "ptq"), "--policy", json.dumps(PTQ)])
    assert folders(tmp_path) == [folder]
    assert read_json(tmp_path / "ptq/record.json")["baseline"]["id"] == "mine"


def test_many_ask_and_one_trains(corpus: Path, tmp_path: Path) -> None:
    config = written_yaml(run_config(corpus, tmp_path, policy=PTQ), tmp_path / "run.yaml")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "qstudy", "train", "--config", config, "--out"]
    outs = [tmp_path / "first", tmp_path / "second"]
    started = [
        subprocess.Popen([*command, str(out)], env=environment, stderr=subprocess.PIPE, text=True) for out in outs
    ]
    said = "".join(process.communicate()[1] for process in started)
    assert [process.returncode for process in started] == [0, 0], said
    assert said.count("step 12/12") == 1, said
    first, second = (read_json(out / "record.json") for out in outs)
    assert first["baseline"] == second["baseline"]
    assert len(folders(tmp_path)) == 1
