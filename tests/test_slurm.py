"""The SLURM script: its body as a task runs it, but for SLURM."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from optuna.trial import TrialState
from pool_program import workers_of
from sweep_helpers import SPACE
from test_pool import BASE, wait_for

from qstudy.sweep.optuna_internals import kept
from qstudy.sweep.storage import load, open_storage
from qstudy.sweep.trials import ATTEMPTS

HERE = Path(__file__).parent
SCRIPT = HERE.parent / "sweeps" / "slurm.sh"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a study that was prepared, and a command `qstudy` whose trials do what the file `behave` says."""
    program = tmp_path / "bin" / "qstudy"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$OMP_NUM_THREADS" >> threads\nexec {sys.executable} {HERE}/pool_program.py "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parent}{os.pathsep}{HERE}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "behave").write_text("work")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"study": "toy", "base": BASE, "space": SPACE, "trials": 4}))
    told = subprocess.run(["qstudy", "sweep", "study.yaml", "--prepare_only"], capture_output=True, text=True)
    assert told.stdout.endswith("Add workers with: qstudy worker --study toy\n"), told.stderr
    return tmp_path


def task(number: int) -> "subprocess.Popen[str]":
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": str(number)}
    pipe = subprocess.PIPE
    return subprocess.Popen(["bash", str(SCRIPT), "toy"], env=environment, stdout=pipe, stderr=pipe, text=True)


def states(folder: Path) -> list[TrialState]:
    _, study = load(open_storage(None, folder / "studies" / "toy"), "toy")
    return [trial.state for trial in study.get_trials()]


def test_an_array_does_a_study_that_was_prepared(cluster: Path) -> None:
    assert states(cluster) == [TrialState.WAITING] * 4
    tasks = [task(number) for number in range(2)]
    said = [each.communicate() for each in tasks]
    assert [each.returncode for each in tasks] == [0, 0], said
    assert states(cluster) == [TrialState.COMPLETE] * 4
    assert said[1][0].startswith("Worker 1 of the study toy on ")
    assert (cluster / "threads").read_text().split()[-2:] == ["1", "1"]


def test_a_task_out_of_time_puts_its_trial_back(cluster: Path) -> None:
    (cluster / "behave").write_text("wait")
    with task(0) as only:
        wait_for(lambda: bool(workers_of(cluster)) or only.poll() is not None)
        only.send_signal(signal.SIGTERM)  # to the batch shell alone, as --signal=B:TERM does
        said = only.communicate()
    assert only.returncode == 130, said
    _, study = load(open_storage(None, cluster / "studies" / "toy"), "toy")
    assert [trial.state for trial in study.get_trials()] == [TrialState.WAITING] * 4
    assert kept(study.get_trials()[0])[ATTEMPTS] == 0


def test_the_script_is_clean_and_wants_a_name() -> None:
    if checker := shutil.which("shellcheck"):
        subprocess.run([checker, str(SCRIPT)], check=True)
    told = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True)
    assert told.returncode != 0
    assert "give the study's name" in told.stderr
