"""Workers on Ray: how they divide a cluster, and sweeps on real ones of this machine, parts of which are killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
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
NODES = Path(__file__).parent / "ray_nodes.py"
LISTENS = "0A"


@pytest.mark.parametrize(
    ("nodes", "workers", "held"),
    [
        ([(8, 0)], 1, Share(8, 0)),
        ([(8, 0)], 3, Share(2, 0)),
        ([(8, 0), (4, 0)], 2, Share(4, 0)),
        ([(8, 0), (4, 0)], 3, Share(4, 0)),
        ([(2, 0), (2, 0)], 4, Share(1, 0)),
        ([(2, 0), (2, 0)], 9, Share(1, 0)),
        ([(16, 4), (16, 4)], 8, Share(4, 1.0)),
        ([(16, 2)], 4, Share(4, 0.5)),
        ([(16, 4)], 2, Share(8, 1.0)),
        ([(64, 0), (16, 4)], 1, Share(16, 1.0)),
        ([(64, 0), (16, 4)], 4, Share(4, 1.0)),
        ([(64, 4), (16, 4)], 8, Share(4, 1.0)),
        ([(64, 0), (16, 4)], 8, Share(2, 0.5)),
    ],
)
def test_workers_hold_as_many_cores_of_a_node_as_all_can(
    nodes: list[tuple[int, int]], workers: int, held: Share
) -> None:
    assert share(nodes, workers) == held


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


Sweep = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def sweep(corpus: Path, tmp_path: Path) -> Iterator[Sweep]:
    """Starts `qstudy sweep --launcher ray` of three trials, in `tmp_path`; takes more options."""
    pytest.importorskip("ray", reason="needs Ray (the extra `ray`)")
    small_study(corpus, tmp_path)
    command = [sys.executable, "-m", "qstudy", "sweep", "study.yaml", "--launcher", "ray"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": "/tmp"}  # Ray's sockets have room for short paths
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with ExitStack() as stack:

        def start(*options: str) -> "subprocess.Popen[str]":
            process = subprocess.Popen([*command, *options], cwd=tmp_path, env=environment, text=True, **pipes)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def test_a_killed_launcher_and_a_lost_worker_cost_nothing(sweep: Sweep, tmp_path: Path) -> None:
    first = sweep("--workers", "2")
    wait_for_worker(first, tmp_path)
    ports = {address for pid in family(first.pid) for address in listening(pid)}
    first.kill()
    wait_until(lambda: not [pid for pid in everything() if works_in(pid, tmp_path) and is_worker(pid)])
    # what is left are Ray's own agents, which take a minute to notice that it is gone
    agents = {pid for pid in everything() if works_in(pid, tmp_path)}
    second = sweep("--workers", "2")
    os.kill(wait_for_worker(second, tmp_path), signal.SIGKILL)
    said = second.communicate()[0]
    assert second.returncode == 0, said
    (told,) = [line for line in said.splitlines() if "another takes its place" in line]
    assert "ended (lost by Ray: " in told
    assert_whole(tmp_path, agents)
    assert ports
    assert all(on_loopback(address) for address in ports), "nobody else reaches a Ray of our own"


def test_a_node_that_is_lost_costs_nothing(
    corpus: Path, sweep: Sweep, cluster: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    """Two nodes with a core each, hence a worker each; when one is gone, a worker waits in vain for another place."""
    small_study(corpus, tmp_path, base={"finetune": {"steps": 200, "batch_size": 8}})  # so long that both are at work
    assert cluster.stdin
    assert cluster.stdout
    process = sweep("--address", cluster.stdout.readline().strip())
    wait_until(lambda: len(list(tmp_path.glob("studies/small/runs/*"))) == 2 or process.poll() is not None)
    ports = {address for pid in family(cluster.pid) for address in listening(pid)}
    cluster.stdin.write("\n")
    cluster.stdin.flush()
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert "another takes its place" in said
    assert_whole(tmp_path)
    assert all(on_loopback(address) for address in ports), "as this test is asked to"


@pytest.fixture
def cluster() -> Iterator["subprocess.Popen[str]"]:
    """`ray_nodes`, which ends when its standard input does."""
    pytest.importorskip("ray", reason="needs Ray (the extra `ray`)")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": "/tmp"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, NODES], env=environment, text=True, **pipes) as process:
        yield process


def is_worker(pid: int) -> bool:
    """Whether a process does trials, or is the actor that holds one that does."""
    return "__main__.py worker" in command(pid) or command(pid).startswith("ray::Process")


def assert_whole(folder: Path, before: Collection[int] = ()) -> None:
    """Every trial has ended once, all from one baseline, and with them all processes but those of `before`."""
    assert states(folder) == [TrialState.COMPLETE] * 3
    records = read_records(folder / "studies" / "small")
    assert sorted(record.trial for record in records) == [0, 1, 2]
    assert len({record.baseline["id"] for record in records}) == 1
    assert len(list((folder / "cache" / "baselines").glob("*/model.qst"))) == 1
    assert not [pid for pid in everything() if works_in(pid, folder) and pid not in before], "all ended with the sweep"


def states(folder: Path) -> list[TrialState]:
    study = optuna.load_study(study_name="small", storage=f"sqlite:///{folder / 'studies/small/study.db'}")
    return [trial.state for trial in study.trials]


def wait_until(reached: Callable[[], bool], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.1)


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
    before = set(folder.glob("studies/small/runs/*/*"))
    while set(folder.glob("studies/small/runs/*/*")) <= before:
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
