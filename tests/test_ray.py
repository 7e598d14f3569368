"""Workers on Ray: how they divide a cluster, and sweeps on real ones of this machine, parts of which are killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import optuna
import pytest
from optuna.trial import TrialState
from processes import command, everything, family, works_in
from sweep_helpers import small_study

from qstudy.errors import UserError
from qstudy.sweep.launchers import build_launcher, ray
from qstudy.sweep.launchers.base import Job
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
        ([(1, 1), (16, 1)], 8, Share(1, 1 / 7)),
        ([(0, 0), (3, 0)], 1, Share(3, 0)),
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
    with pytest.raises(UserError, match="launcher: 'local': it has no option 'address'"):
        build_launcher("local", "10.0.0.1:6379")
    with pytest.raises(UserError, match="launcher: 'rya'"):
        build_launcher("rya", None)


def node(name: str, cpus: int, gpus: int = 0) -> dict[str, Any]:
    return {"NodeID": name, "Alive": True, "NodeManagerHostname": name, "Resources": {"CPU": cpus, "GPU": gpus}}


def busy_ray() -> MagicMock:
    """A Ray that has no place for any actor."""
    busy, actor = MagicMock(), SimpleNamespace(__ray_ready__=MagicMock(), wait=MagicMock())
    busy.remote.return_value.options.return_value.remote.return_value = actor
    busy.wait.return_value = ([], [])
    return busy


def joined(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, Any]], held: dict[str, dict[str, float]]
) -> RayCluster:
    """A cluster of these nodes, on which others hold something."""
    cluster = RayCluster()
    cluster._ray = busy_ray()
    cluster._ray.nodes.return_value = nodes
    available = {
        each["NodeID"]: {
            kind: count - held.get(each["NodeID"], {}).get(kind, 0) for kind, count in each["Resources"].items()
        }
        for each in nodes
    }
    monkeypatch.setattr(cluster, "_available", lambda: available)
    return cluster


@pytest.mark.parametrize(
    ("nodes", "held", "asked", "count", "of_one", "of_all"),
    [
        ([node("a", 4)], {"a": {"CPU": 1}}, None, 1, Share(3, 0), Share(3, 0)),
        ([node("a", 4), node("b", 8)], {"b": {"CPU": 8}}, None, 1, Share(4, 0), Share(4, 0)),
        ([node("a", 4), node("b", 8)], {"b": {"CPU": 6}}, 3, 3, Share(4, 0), Share(2, 0)),
        ([node("a", 4)], {"a": {"CPU": 4}}, None, 1, Share(1, 0), Share(1, 0)),
        ([node("a", 8, 2)], {"a": {"CPU": 1, "GPU": 2}}, None, 2, Share(2, 1.0), Share(1, 1.0)),
        ([node("a", 8, 2)], {"a": {"CPU": 1, "GPU": 0.5}}, None, 1, Share(7, 1.0), Share(7, 1.0)),
        ([node("a", 1, 1), node("b", 16)], {}, 8, 1, Share(1, 1.0), Share(1, 1.0)),
        ([node("a", 1, 2), node("b", 16)], {}, None, 1, Share(1, 1.0), Share(1, 1.0)),
        ([node("a", 2, 4)], {}, None, 2, Share(2, 1.0), Share(1, 1.0)),
    ],
)
def test_workers_ask_for_what_nobody_holds(
    nodes: list[dict[str, Any]],
    held: dict[str, dict[str, float]],
    asked: int | None,
    count: int,
    of_one: Share,
    of_all: Share,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = joined(monkeypatch, nodes, held)
    assert cluster.workers(asked, one_machine=False) == count
    assert (f"place for {count} of {asked} workers" in capsys.readouterr().out) == (asked is not None and asked > count)
    for of, expected in ((1, of_one), (count, of_all)):
        assert cluster.start(Job((), {}, Path(), None, 0, of))._share == expected


def test_a_worker_that_waits_for_others_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray, "TELL_S", -1.0)
    worker = ray.RayWorker(busy_ray(), Job((), {}, Path(), None, 3), Share(4, 0.5))
    assert worker.ended() is None
    assert worker.ended() is None
    told = "Worker 3 waits for a place on one node of the Ray cluster (CPUs: 4, GPUs: 0.5).\n"
    assert capsys.readouterr().out == told


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


def test_a_killed_launcher_and_a_lost_worker_cost_nothing(corpus: Path, sweep: Sweep, tmp_path: Path) -> None:
    small_study(corpus, tmp_path, base={"finetune": {"steps": 50, "batch_size": 8}})  # until its loss is noticed
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
    cluster = joined(monkeypatch, [node("elsewhere", 8), node("there", 8)], {})
    with pytest.raises(UserError, match=r"storage: the cluster has other machines \(elsewhere, there\), which a file"):
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
