"""`sweeps/slurm.sh` as a job array of a real SLURM."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm import MISSING, Cluster
from sweep_helpers import small_study

from qstudy.training.record import read_records

ROOT = Path(__file__).parents[1]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "slurm").mkdir()
    cluster = Cluster(tmp_path / "slurm")
    yield cluster
    cluster.stop()


def qstudy(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "qstudy", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


def status(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(qstudy(folder, "status", "small", "--json"))
    return found


@pytest.mark.skipif(bool(MISSING), reason=f"needs SLURM and a user who may start it: {', '.join(MISSING)}")
def test_a_job_array_trains_a_study_though_a_task_is_preempted(cluster: Cluster, corpus: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"  # `qstudy` as an installation has it
    programs.mkdir()
    (programs / "qstudy").write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m qstudy "$@"\n')
    (programs / "qstudy").chmod(0o755)
    cluster.environment["PATH"] = f"{programs}:{cluster.environment['PATH']}"
    long = {"steps": 60, "batch_size": 8, "checkpoint_every": 5}
    grid = {"policy": {"name": "fake_qat", "layers": {"*": {"weight": [8, 6, 4, 2]}}}}
    study = small_study(corpus, tmp_path, grid=grid, base={"finetune": long})
    qstudy(tmp_path, "sweep", str(study), "--prepare_only")
    job = ["sbatch", "--parsable", "--cpus-per-task=1", "--array=0-1", str(ROOT / "sweeps" / "slurm.sh"), "small"]
    number = cluster.call(*job, cwd=tmp_path).strip()
    runs = tmp_path / "studies" / "small" / "runs"
    wait_for(lambda: any(runs.glob("*/last.ckpt")), tmp_path)
    cluster.call("scancel", "--signal=TERM", "--batch", f"{number}_0")  # as SLURM does before it preempts
    wait_for(lambda: not cluster.call("squeue", "-h", "-j", number).strip(), tmp_path)
    found = status(tmp_path)
    assert (found["done"], found["outcomes"]) == (4, {"trained": 4})
    records = read_records(tmp_path / "studies" / "small")
    assert [record.trial for record in records] == [0, 1, 2, 3]
    stopped, ended = [(tmp_path / f"slurm-{number}_{task}.out").read_text() for task in (0, 1)]
    assert "Interrupted; the trial in flight waits for another worker." in stopped
    assert "srun" not in stopped + ended  # Lightning's advice, which does not fit here


def wait_for(reached: Callable[[], bool], folder: Path, seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while not reached():
        logs = "".join(log.read_text() for log in folder.glob("slurm-*.out"))
        assert time.monotonic() < end, logs[-2000:]
        time.sleep(0.2)
