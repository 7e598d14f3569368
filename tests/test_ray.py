"""Workers on Ray: how they divide a cluster, and a sweep on a real one of this machine in which a worker is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from processes import command, everything, family, works_in
from sweep_helpers import small_study

from qstudy.errors import UserError
from qstudy.sweep.launchers import build_launcher
from qstudy.sweep.launchers.ray import RayCluster, Share, share
from qstudy.training.record import read_records

ROOT = Path(__file__).parents[1]
LISTENS = "0A"


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers", "held"),
    [
        ([8], 0, 1, Share(8, 0)),
        ([8], 0, 3, Share(2, 0)),
        ([8, 4], 0, 2, Share(4, 0)),
        ([8, 4], 0, 3, Share(4, 0)),
        ([2, 2], 0, 4, Share(1, 0)),
        ([2, 2], 0, 9, Share(1, 0)),
        ([16, 16], 8, 8, Share(4, 1.0)),
        ([16], 2, 4, Share(4, 0.5)),
        ([16], 4, 2, Share(8, 1.0)),
    ],
)
def test_workers_hold_as_many_cores_of_a_node_as_all_can(cpus: list[int], gpus: int, workers: int, held: Share) -> None:
    assert share(cpus, gpus, workers) == held


def test_a_launcher_may_be_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_launcher.py").write_text(
        "from qstudy.sweep.launchers.local import ThisMachine\nclass Mine(ThisMachine):\n    pass\n"
    )
    assert type(build_launcher("my_launcher.Mine", None)).__name__ == "Mine"
    with pytest.raises(UserError, match="launcher: 'local': got an unexpected keyword argument 'address'"):
        build_launcher("local", "10.0.0.1:6379")
    with pytest.raises(UserError, match="launcher: 'rya'"):
        build_launcher("rya", None)


@pytest.fixture
def sweep(corpus: Path, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """`qstudy sweep --launcher ray` of three trials, in `tmp_path`."""
    pytest.importorskip("ray", reason="needs Ray (the extra `ray`)")
    small_study(corpus, tmp_path)
    command = [sys.executable, "-m", "qstudy", "sweep", "study.yaml", "--launcher", "ray", "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": "/tmp"}  # Ray's sockets have room for short paths
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **pipes) as process:
        yield process
        process.kill()


def test_a_lost_worker_is_replaced(sweep: "subprocess.Popen[str]", tmp_path: Path) -> None:
    victim = wait_for_worker(sweep, tmp_path)
    ports = {address for pid in family(sweep.pid) for address in listening(pid)}
    os.kill(victim, signal.SIGKILL)
    said = sweep.communicate()[0]
    assert sweep.returncode == 0, said
    (told,) = [line for line in said.splitlines() if "another takes its place" in line]
    assert "ended (lost by Ray: " in told
    study = optuna.load_study(study_name="small", storage=f"sqlite:///{tmp_path / 'studies/small/study.db'}")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    records = read_records(tmp_path / "studies" / "small")
    assert sorted(record.trial for record in records) == [0, 1, 2]
    assert len({record.baseline["id"] for record in records}) == 1
    assert len(list((tmp_path / "cache" / "baselines").glob("*/model.qst"))) == 1
    assert ports
    assert all(on_loopback(address) for address in ports), "nobody else reaches a Ray of our own"
    assert not [pid for pid in everything() if works_in(pid, tmp_path)], "all ended with the sweep"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:port"])
def test_a_cluster_that_is_not_there_is_told_at_once(address: str) -> None:
    pytest.importorskip("ray", reason="needs Ray (the extra `ray`)")
    with pytest.raises(UserError, match=f"no Ray cluster can be used at {address}: .*; give its HOST:PORT"):
        RayCluster(address).__enter__()


def test_a_file_serves_no_other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = RayCluster()
    node = {"Alive": True, "NodeManagerHostname": "elsewhere", "Resources": {"CPU": 8.0}}
    monkeypatch.setattr(cluster, "_nodes", lambda: [node, node])
    with pytest.raises(UserError, match=r"storage: the cluster has other machines \(elsewhere\), which a file"):
        cluster.workers(2, one_machine=True)
    assert cluster.workers(None, one_machine=False) == 2
    assert cluster.workers(99, one_machine=False) == 16


def wait_for_worker(sweep: "subprocess.Popen[str]", folder: Path) -> int:
    """The actor that holds a worker which has begun a trial."""
    while not any(folder.glob("studies/small/runs/*")):
        assert sweep.poll() is None, sweep.communicate()[0]
        time.sleep(0.1)
    return next(pid for pid in family(sweep.pid) if command(pid).startswith("ray::Process"))


def listening(pid: int) -> list[str]:
    """Addresses, in hexadecimal, of a process's sockets that wait for others."""
    try:
        sockets = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return []
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return [line[1].split(":")[0] for line in lines if line[3] == LISTENS and f"socket:[{line[9]}]" in sockets]


def on_loopback(address: str) -> bool:
    """127.0.0.0/8, the same mapped into IPv6, or ::1; the bytes of each word are turned round."""
    return address.endswith("7F") or address == f"{'':0>24}01000000"
