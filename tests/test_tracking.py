"""W&B: what it holds offline is what the record says, and nothing that happens to it costs a run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import run_config

from qstudy.training.config import config_from_dict
from qstudy.training.record import Record
from qstudy.training.run import run
from qstudy.training.tracking import entry_of, start_tracking
from qstudy.training.wandb_run import Tracker

pytest.importorskip("wandb", reason="needs wandb (the extra `track`)")
from wandb.util import get_core_path

CONFIG = config_from_dict({"data": {"train": "t", "dev": "d"}, "policy": {"name": "mixed"}, "seed": 3})
RECORD = Record(
    run="trial-0000-mixed",
    trial=0,
    state="complete",
    steps=60,
    policy="mixed",
    bit_map={"encoder.lstm.0": {"weight": 3, "activation": 8}, "joiner.output": {"weight": 8, "activation": 32}},
    metrics={"dev": {"wer": 0.125}, "test": {"wer": 0.25}},
    size_bytes=4321,
    latency={"edge_nna": {"latency_ms": 1.5, "rtf": 0.05}},
    samples=[{"reference": "set a timer", "hypothesis": "set timer"}],
)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """W&B's own files under the test's folder, and nobody logged in."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = {name: str(tmp_path / "home") for name in ("HOME", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR")}
    for name, value in {**home, "NETRC": str(tmp_path / "netrc"), "WANDB_X_DISABLE_STATS": "true"}.items():
        monkeypatch.setenv(name, value)


def track(study: Path, losses: dict[int, float], finish: bool = True) -> Tracker | None:
    """A run of `study` with these losses by step."""
    folder = study / "runs" / "trial-0000-mixed"
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model.qst"
    model.write_bytes(b"packed model")
    tracker = start_tracking(entry_of(CONFIG, folder, RECORD.bit_map or {}, study.name, 0))
    for step, loss in losses.items() if tracker else ():
        tracker.log_metrics({"loss": loss}, step)
    if tracker and finish:
        tracker.finish(RECORD, model)
    return tracker


def inspect(run: Path, *options: str) -> str:
    """What `wandb leet inspect --json` says of a run: W&B's own program, without the Python around it, which takes
    seconds to import."""
    (file,) = run.glob("run-*.wandb")
    command = [get_core_path(), "leet", "inspect", "--no-observability", *options, "--json"]
    command += ["--run-file", str(file), str(run.parent)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def records_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in inspect(run).splitlines()]


def entered(records: list[dict[str, Any]]) -> dict[str, Any]:
    """What W&B knows of the run itself: its group, kind and tags."""
    return dict(next(record["run"] for record in records if record["type"] == "run"))


def runs(study: Path) -> list[Path]:
    return sorted(study.glob("wandb/offline-run-*"))


def artifacts(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [
        record["artifact"] for record in records if record["type"] == "artifact" and record["artifact"]["type"] == kind
    ]


def charts(records: list[dict[str, Any]]) -> dict[str, list[int]]:
    """What `wandb leet` draws: numbers that were logged under a name without an underscore, with their steps."""
    found: dict[str, list[int]] = {}
    for record in records:
        item = record["history"]["item"] if record["type"] == "history" else {}
        for name in (name for name in item if not name.startswith("_")):
            found.setdefault(name, []).append(item["_step"])
    return found


def losses_of(records: list[dict[str, Any]]) -> dict[int, float]:
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    return {item["_step"]: item["loss"] for item in items if "loss" in item}


def test_the_offline_run_is_the_record(tmp_path: Path) -> None:
    study = tmp_path / "digits"
    track(study, {20: 3.5, 40: 1.25, 60: 0.5})
    (run,) = runs(study)
    records = records_of(run)
    assert losses_of(records) == {20: 3.5, 40: 1.25, 60: 0.5}
    summary = inspect(run, "--summary")
    typed = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(run)]
    assert subprocess.run(typed, check=True, capture_output=True, text=True).stdout == summary
    seen = json.loads(summary)
    assert (seen["name"], seen["project"], seen["state"]) == ("digits/trial-0000-mixed", "qstudy", "finished")
    assert {name: seen["summary"][name] for name in RECORD.headline} == RECORD.headline
    assert seen["summary"]["dev_wer"] == 0.125
    assert (seen["config"]["policy"], seen["config"]["seed"]) == ({"name": "mixed"}, 3)
    assert (seen["config"]["bits.joiner.output.weight"], seen["config"]["bits.encoder.lstm.0.activation"]) == (8, 8)
    assert "-digits-0000-" in run.name, "what `wandb leet` lists"
    told = entered(records)
    assert (told["run_group"], told["job_type"], told["tags"]) == ("digits", "trial", ["mixed", "lstm"])
    (model,) = artifacts(records, "model")
    (entry,) = model["manifest"]["contents"]
    assert Path(entry["local_path"]).read_bytes() == b"packed model"


def test_the_tables_are_artifacts_and_no_charts(tmp_path: Path) -> None:
    """What is logged is drawn: of a table its number of columns. What there is to draw ends with the final dev WER."""
    track(tmp_path / "digits", {20: 1.0})
    (run,) = runs(tmp_path / "digits")
    records = records_of(run)
    assert charts(records) == {"loss": [20], "dev_wer": [60]}
    (tables,) = artifacts(records, "tables")
    found = {entry["path"].split(".")[0]: Path(entry["local_path"]) for entry in tables["manifest"]["contents"]}
    layers, transcripts = (json.loads(found[name].read_text()) for name in ("layers", "transcripts"))
    assert layers["columns"] == ["layer", "weight", "activation"]
    assert layers["data"] == [["encoder.lstm.0", 3, 8], ["joiner.output", 8, 32]]
    assert transcripts["data"] == [["set a timer", "set timer"]]


def test_a_resumed_run_is_the_same_run(tmp_path: Path) -> None:
    first_part = track(tmp_path / "digits", {20: 2.0}, finish=False)
    assert first_part
    with pytest.raises(KeyboardInterrupt), first_part:
        raise KeyboardInterrupt
    time.sleep(1.1)  # W&B names folders by the second
    track(tmp_path / "digits", {40: 1.0})
    first, second = runs(tmp_path / "digits")
    assert json.loads(inspect(first, "--summary"))["exit_code"] == 1
    assert losses_of(records_of(first)) == {20: 2.0}
    assert losses_of(records_of(second)) == {40: 1.0}
    assert first.name.rpartition("-")[2] == second.name.rpartition("-")[2]


def test_a_killed_run_keeps_its_losses(tmp_path: Path) -> None:
    program = "\n".join(
        [
            "import pathlib, sys, time",
            "from test_tracking import track",
            "track(pathlib.Path(sys.argv[1]), {20: 2.0, 40: 1.0, 60: 0.5}, finish=False)",
            "time.sleep(2.5)",  # W&B writes every second
            "print('logged', flush=True)",
            "time.sleep(600)",
        ]
    )
    places = os.pathsep.join(str(Path(__file__).parents[index]) for index in (0, 1))
    command = [sys.executable, "-c", program, str(tmp_path / "digits")]
    environment = {**os.environ, "PYTHONPATH": places}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"logged\n"
        os.killpg(process.pid, signal.SIGKILL)
    (run,) = runs(tmp_path / "digits")
    assert losses_of(records_of(run)) == {20: 2.0, 40: 1.0}, (
        "all but the last step, which W&B keeps open for more metrics"
    )


def test_without_wandb_there_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # `import wandb` fails
    track(tmp_path / "digits", {20: 1.0})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("W&B could not start (import of wandb halted")
    assert line.endswith("the run goes on without it.")


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "wandb").write_text("in the way")
    track(tmp_path / "digits", {20: 1.0})
    assert "W&B could not start" in capsys.readouterr().err


def test_a_dead_service_costs_nothing_and_the_next_run_has_another(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = track(tmp_path / "digits", {20: 1.0}, finish=False)
    assert tracker
    for pid in _services():
        os.kill(pid, signal.SIGKILL)
    for step in range(40, 2000, 20):
        tracker.log_metrics({"loss": 1.0}, step)
        time.sleep(0.01)
    tracker.finish(RECORD, tmp_path / "digits" / "runs" / "trial-0000-mixed" / "model.qst")
    assert capfd.readouterr().err.count("the run goes on without it") == 1
    track(tmp_path / "next", {20: 1.0})
    (run,) = runs(tmp_path / "next")
    assert losses_of(records_of(run)) == {20: 1.0}


def test_online_without_a_login_is_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    track(tmp_path / "digits", {20: 1.0})
    assert "runs are tracked offline" in capsys.readouterr().err
    (run,) = runs(tmp_path / "digits")
    assert losses_of(records_of(run)) == {20: 1.0}


def _services() -> list[int]:
    """Processes of W&B that this one has started."""
    children = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
    found: list[Any] = [pid for pid in children if b"wandb-core" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert found
    return [int(pid) for pid in found]


def test_a_training_logs_its_curves(corpus: Path, tmp_path: Path) -> None:
    """Through Lightning: the loss and the learning rate every 20 steps, the dev set's errors when it is evaluated."""
    schedule = {"steps": 40, "evaluate_every": 30}
    run(run_config(corpus, tmp_path, training=schedule, track=True), tmp_path / "float", name="float")
    (folder,) = (tmp_path / "float").glob("wandb/offline-run-*")
    every = [19, 39]  # Lightning counts from 0
    names = ("loss", "loss_rnnt", "loss_ctc", "gradient_norm", "step_ms", "learning_rate")
    assert charts(records_of(folder)) == {**dict.fromkeys(names, every), "dev_wer": [29]}
    assert json.loads(inspect(folder, "--summary"))["state"] == "finished"
