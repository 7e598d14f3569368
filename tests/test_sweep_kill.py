"""The whole thing: `qstudy sweep`, killed and interrupted at several moments, with real speech, training and W&B."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState
from test_tracking import inspect

from qstudy.commands.sweep import sweep
from qstudy.training.record import Record, read_records

ROOT = Path(__file__).parents[1]

BROKEN = '''
from qstudy.quant.policies.fake_qat import FakeQAT

class Broken(FakeQAT):
    """A user's policy with a mistake."""

    def penalty(self, model, step):
        raise ZeroDivisionError("no such layer")
'''


def write_study(folder: Path) -> Path:
    """sweeps/smoke.yaml with still less of everything, and a policy that does not work."""
    study = yaml.safe_load((ROOT / "sweeps" / "smoke.yaml").read_text())
    study["base"]["data"]["make"] |= {"train": 24, "dev": 6, "test": 6, "processes": 1}
    study["base"]["model"] = {"encoder": {"name": "lstm", "hidden": 16, "layers": 2}, "joiner": {"hidden": 16}}
    study["base"]["training"] |= {"steps": 12, "batch_size": 8, "checkpoint_every": 2}
    study["base"]["finetune"] |= {"steps": 12, "batch_size": 8, "checkpoint_every": 2, "evaluate_every": 4}
    layers = [{"weight": 4, "activation": 8}, {"weight": 16}]
    study["grid"] = {"policy": {"name": ["ptq", "fake_qat", "broken.Broken"], "layers": {"*": layers}}}
    study["budgets"] = {"size_bytes": 300000, "latency_ms": 50.0, "accelerator": "edge_nna"}
    study["trials"] = 5
    (folder / "broken.py").write_text(BROKEN)
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return folder / "study.yaml"


def start(folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "qstudy", "sweep", "study.yaml", "--workers", "1"]
    quiet = {"WANDB_X_DISABLE_STATS": "true", "WANDB_DATA_DIR": "home", "WANDB_CACHE_DIR": "home"}
    environment = {**os.environ, **quiet, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    output = (folder / "output.txt").open("ab")
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True)


def stop_when(folder: Path, reached: Callable[[], bool], sent: signal.Signals) -> int:
    """Start the sweep, wait until it has got somewhere, and send a signal to its whole process group."""
    process = start(folder)
    while not reached():
        assert process.poll() is None, (folder / "output.txt").read_text()
        time.sleep(0.02)
    os.killpg(process.pid, sent)
    return process.wait()


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="smoke", storage=f"sqlite:///{folder / 'studies/smoke/study.db'}").trials


def test_a_killed_sweep_goes_on_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = write_study(tmp_path)
    runs = tmp_path / "studies" / "smoke" / "runs"
    some: Callable[[str], Callable[[], bool]] = lambda pattern: lambda: any(tmp_path.glob(pattern))  # noqa: E731

    assert stop_when(tmp_path, some("corpora/smoke/*"), signal.SIGKILL) == -signal.SIGKILL
    assert stop_when(tmp_path, some("cache/baselines/*/last.ckpt"), signal.SIGKILL) == -signal.SIGKILL
    assert not list(runs.glob("*"))
    assert stop_when(tmp_path, some("studies/smoke/runs/*-fake_qat/last.ckpt"), signal.SIGKILL) == -signal.SIGKILL
    (running,) = [trial for trial in trials(tmp_path) if trial.state == TrialState.RUNNING]
    (checkpoint,) = runs.glob("*-fake_qat/last.ckpt")
    saved = checkpoint.stat().st_mtime_ns
    assert stop_when(tmp_path, lambda: checkpoint.stat().st_mtime_ns > saved, signal.SIGINT) == 130
    assert "Go on with: qstudy sweep study.yaml" in (tmp_path / "output.txt").read_text()
    assert not [trial for trial in trials(tmp_path) if trial.state == TrialState.RUNNING]
    assert start(tmp_path).wait() == 0, (tmp_path / "output.txt").read_text()

    ended = trials(tmp_path)
    assert {trial.state for trial in ended} == {TrialState.COMPLETE, TrialState.PRUNED}
    records = {record.trial: record for record in read_records(tmp_path / "studies" / "smoke")}
    assert sorted(records) == [trial.number for trial in ended]
    for trial in ended:
        compare(trial, records[trial.number])
    assert records[running.number].steps == 12
    failed = [record for record in records.values() if record.state == "failed"]
    assert [record.policy for record in failed] == ["broken.Broken"]
    assert "ZeroDivisionError: no such layer" in failed[0].reason
    assert sum(trial.user_attrs["outcome"] in ("trained", "failed") for trial in ended) == 5
    assert {trial.user_attrs["outcome"] for trial in ended} == {"trained", "failed", "over_budget"}
    assert_tracked(tmp_path / "studies" / "smoke", records)

    monkeypatch.chdir(tmp_path)
    sweep(study.relative_to(tmp_path))  # it has ended: nothing is left to do
    assert [(trial.number, trial.values) for trial in trials(tmp_path)] == [(t.number, t.values) for t in ended]


def compare(trial: optuna.trial.FrozenTrial, record: Record) -> None:
    """What the storage says of a trial is what its record says."""
    assert record.size_bytes == trial.user_attrs["size_bytes"]
    assert record.latency["edge_nna"]["latency_ms"] == trial.user_attrs["latency_ms"]
    named = {name: excess for name, excess in trial.constraints.items() if not name.isdigit()}  # dashboards have a list
    over = [name for name, excess in named.items() if excess > 0]
    assert trial.user_attrs["feasible"] == (not over)
    if record.state == "complete":
        assert trial.values == [record.metrics["dev"]["wer"]]
        assert not over
    else:
        assert trial.state == TrialState.PRUNED
        assert record.reason == trial.user_attrs["reason"]
    if over:
        assert record.reason.startswith("over budget: ")
        assert all(name in record.reason for name in over)
        assert record.metrics is None


def assert_tracked(study: Path, records: dict[int, Record]) -> None:
    """The last W&B folder of every trained run has the record's numbers."""
    for record in records.values():
        if record.state == "complete":
            last = max(study.glob(f"wandb/offline-run-*-smoke-{record.trial:04d}-*"))
            shown = json.loads(inspect(last, "--summary"))
            assert shown["name"] == f"smoke/{record.run}"
            assert {name: shown["summary"].get(name) for name in record.headline} == record.headline
