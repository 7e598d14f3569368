"""Workers of one machine: they end with their sweep, and are replaced when they crash."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from optuna.trial import TrialState
from pool_program import use, workers_of
from sweep_helpers import SPACE, make_config, open_queue

from qstudy.errors import UserError
from qstudy.named import build
from qstudy.sweep import pool
from qstudy.sweep.capacity import fitting_workers, free_bytes
from qstudy.sweep.launchers import process
from qstudy.sweep.launchers.base import Job
from qstudy.sweep.launchers.local import ThisMachine
from qstudy.sweep.launchers.process import Process
from qstudy.sweep.lifeline import stoppable
from qstudy.sweep.optuna_internals import kept
from qstudy.sweep.patience import PatientStorage
from qstudy.sweep.storage import load, open_storage
from qstudy.sweep.trials import ATTEMPTS

BASE = {"data": {"train": "train.jsonl", "dev": "dev.jsonl"}, "track": False}
HERE = Path(__file__).parent


@pytest.fixture
def working(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, and pools whose workers do what its file `behave` says."""
    use(tmp_path, monkeypatch)
    return tmp_path


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").exists() else True


def wait_for(reached: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_workers_end_with_their_sweep(working: Path, sent: signal.Signals) -> None:
    (working / "behave").write_text("wait")
    study = {"study": "toy", "base": BASE, "space": SPACE, "trials": 4}
    (working / "study.yaml").write_text(yaml.safe_dump(study))
    command = [sys.executable, str(HERE / "pool_program.py"), "sweep", "study.yaml", "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as sweep:
        wait_for(lambda: len(workers_of(working)) == 2 or sweep.poll() is not None)
        sweep.send_signal(sent)
        said = sweep.communicate()[1]
    assert len(workers_of(working)) == 2, said
    wait_for(lambda: not any(map(lives, workers_of(working))), 30)
    assert sweep.returncode == (130 if sent == signal.SIGTERM else -signal.SIGKILL)
    assert "Traceback" not in said
    _, study_ = load(open_storage(None, working / "studies" / "toy"), "toy")
    trials = study_.get_trials()
    assert [trial.state for trial in trials] == [TrialState.WAITING] * 4
    assert [kept(trial).get(ATTEMPTS) for trial in trials] == [0, 0, None, None], "put back in good order"


def test_a_crashed_worker_is_replaced_at_once_and_that_is_said(
    working: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (working / "behave").write_text("crash once")
    queue = open_queue(working, make_config(trials=3, base=BASE))
    pool.run_pool(queue, ThisMachine(), 1, None)
    assert len(set(workers_of(working))) == 2
    assert queue.done() == 3
    said = capsys.readouterr()
    told = [line for line in (said.out + said.err).splitlines() if "another takes its place" in line]
    assert len(told) == 1
    assert told[0].startswith("Worker 0 ended (killed; out of memory?)")


def test_workers_that_cannot_even_begin_end_the_sweep(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (working / "broken.py").write_text("raise SystemExit(1)")
    monkeypatch.setattr(process, "PROGRAM", working / "broken.py")
    queue = open_queue(working, make_config(trials=3, base=BASE))
    with pytest.raises(UserError, match=r"end before they have begun a trial, the last with exit code 1; see .*log"):
        pool.run_pool(queue, ThisMachine(), 2, None)


def test_a_storage_that_stays_away_ends_the_sweep_and_its_workers(
    working: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The database's tables vanish under a running sweep."""
    (working / "behave").write_text("wait")
    queue = open_queue(working, make_config(trials=3, base=BASE))
    monkeypatch.setattr(PatientStorage, "patience_s", 2.5)

    def tend(self: pool.Pool) -> None:
        if workers_of(working):
            with queue._storage.engine.begin() as connection:
                connection.exec_driver_sql("ALTER TABLE trials RENAME TO gone")

    monkeypatch.setattr(pool.Pool, "replace_ended", tend)
    with pytest.raises(UserError, match=r"has not answered for . s \(no such table: trials\); nothing is lost"):
        pool.run_pool(queue, ThisMachine(), 1, None)
    assert capsys.readouterr().err.count("does not answer") == 1
    assert not any(map(lives, workers_of(working)))


def test_what_lies_in_the_working_folder_stands_in_for_nothing(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(working)
    (working / "yaml.py").write_text("raise SystemExit('the wrong yaml')")
    queue = open_queue(working, make_config(trials=1, base=BASE))
    job = replace(pool.job_of(queue, None, options=("--help",)), log=working / "log")
    assert Process(job, 1).wait().code == 0, (working / "log").read_text()
    (working / "my_part.py").write_text("class Part: pass")
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert type(build({"name": "my_part.Part"}, {}, "part")).__name__ == "Part"
    assert sys.path[-1] == str(working), "the user's own files are found, after all others"
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    command = [sys.executable, "-m", "qstudy", "sweep", "--help"]
    subprocess.run(command, env=environment, check=True, capture_output=True)


def test_a_worker_hears_that_it_is_let_go_where_the_signal_was_blocked(working: Path) -> None:
    """Ray starts its processes so, and they hand it on."""
    (working / "behave").write_text("wait")
    queue = open_queue(working, make_config(trials=1, base=BASE))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        worker = ThisMachine().start(pool.job_of(queue, None))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    wait_for(lambda: bool(workers_of(working)) or worker.ended() is not None)
    pool.stop([worker])
    assert worker.ended() == (130, "exit code 130", "Interrupted; the trial in flight waits for another worker.")
    assert kept(queue.trials()[0])[ATTEMPTS] == 0


@pytest.mark.parametrize(
    ("says", "said"),
    [
        (
            r"print('Making the corpus'); print('qstudy: two:\n  a.jsonl: gone\n  b.jsonl: gone')",
            "two:\n  a.jsonl: gone\n  b.jsonl: gone",
        ),
        ("print('Making the corpus'); raise ValueError('wrong')", "ValueError: wrong"),
        ("import os; os.remove('log')", ""),
        ("pass", ""),
    ],
)
def test_what_a_worker_said_last(says: str, said: str, working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All lines of a message; not what another said before it."""
    (working / "program.py").write_text(says)
    monkeypatch.setattr(process, "PROGRAM", working / "program.py")
    (working / "log").write_text("qstudy: an older message.\n")
    assert Process(Job((), {}, working, working / "log"), 1).wait().said == said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_sweep_is_stopped_as_by_ctrl_c(number: signal.Signals) -> None:
    inherited = signal.signal(number, signal.SIG_DFL)  # who started the tests may have ignored it
    try:
        with pytest.raises(KeyboardInterrupt), stoppable():
            signal.raise_signal(number)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, inherited)


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_workers_are_bounded_by_memory_and_warned_about_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:    5000000 kB\n")
    monkeypatch.setattr("qstudy.sweep.capacity.MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr("qstudy.sweep.capacity.GROUPS", tmp_path)
    monkeypatch.setattr("qstudy.sweep.capacity.OWN_GROUP", tmp_path / "none")
    monkeypatch.setattr("qstudy.sweep.capacity.cores", lambda: 2)
    assert fitting_workers(2, gpus=0) == 2
    assert capsys.readouterr().err == ""
    assert fitting_workers(64, gpus=0) == 5
    memory, cores = capsys.readouterr().err.splitlines()
    assert memory == "64 workers need about 64 GB, and 5 GB of memory are free: going on with 5."
    assert cores == "5 workers share 2 cores and slow each other down; use --workers 2."
    assert fitting_workers(4, gpus=4) == 4
    assert capsys.readouterr().err == ""
    (tmp_path / "memory.current").write_text("1000000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes() == 5000000 * 1024
    (tmp_path / "memory.max").write_text("3000000000\n")
    assert free_bytes() == 2000000000
    (tmp_path / "memory.stat").write_text("anon 2\nfile 8\ninactive_file 500000000\nactive_file 200000000\n")
    assert free_bytes() == 2700000000, "copies of files make place"


def test_the_least_limit_of_the_control_groups_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job of SLURM or systemd has a group within that of the machine."""
    monkeypatch.setattr("qstudy.sweep.capacity.MEMORY", tmp_path / "none")
    monkeypatch.setattr("qstudy.sweep.capacity.GROUPS", tmp_path)
    monkeypatch.setattr("qstudy.sweep.capacity.OWN_GROUP", tmp_path / "cgroup")
    assert free_bytes() is None
    assert fitting_workers(3, gpus=0) == 3, "a system that does not tell"
    (tmp_path / "cgroup").write_text("1:name=systemd:/\n0::/slurm/job\n")
    (tmp_path / "slurm" / "job").mkdir(parents=True)
    for group, limit in ((".", 9), ("slurm", 3), ("slurm/job", 5)):
        (tmp_path / group / "memory.max").write_text(f"{limit}000000000\n")
        (tmp_path / group / "memory.current").write_text("1000000000\n")
    assert free_bytes() == 2000000000
    (tmp_path / "slurm" / "memory.max").write_text("max\n")
    assert free_bytes() == 4000000000
    monkeypatch.setattr("qstudy.sweep.launchers.local.visible_gpus", lambda: list("01234567"))
    assert ThisMachine().workers(None, one_machine=True) == 4, "not one per GPU"
    assert "8 workers need about 8 GB" in capsys.readouterr().err


def test_workers_divide_the_cores_in_every_library(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "import torch, numba, os; print(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)"
    (working / "program.py").write_text(told)
    monkeypatch.setattr(process, "PROGRAM", working / "program.py")
    monkeypatch.setattr("qstudy.sweep.launchers.local.cores", lambda: 5)  # not more threads than this machine has cores
    for name in process.THREADS:
        monkeypatch.delenv(name, raising=False)
    queue = open_queue(working, make_config(trials=1, base=BASE))
    for of, threads in ((2, 2), (9, 1)):
        log = working / f"{of}.log"
        ThisMachine().start(replace(pool.job_of(queue, None, 0, of), log=log)).wait()
        assert log.read_text().split() == [str(threads)] * 2
