"""A study that machines share: PostgreSQL, and workers that are only known by their heartbeats."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from sweep_helpers import make_config, measure, open_queue, start_victim

from qstudy.sweep.queue import Queue
from qstudy.sweep.worker import work

FOUND = shutil.which("initdb") or next(iter(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
pytestmark = pytest.mark.skipif(FOUND is None, reason="needs PostgreSQL's initdb (Debian: postgresql)")
BEATS: dict[str, Any] = {"heartbeat_s": 1, "grace_s": 2}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a PostgreSQL server of our own on loopback; as user `nobody` if we are root, whom it refuses."""
    pytest.importorskip("psycopg", reason="needs psycopg (the extra `sweep`)")
    programs = Path(str(FOUND)).resolve().parent
    user: dict[str, Any] = {"user": "nobody"} if os.geteuid() == 0 else {}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if user:
            shutil.chown(folder, "nobody")
        common: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **user}
        create = ["initdb", "-D", "data", "-U", "tester", "-A", "trust", "--no-sync"]
        subprocess.run([programs / create[0], *create[1:]], check=True, **common)
        start = ["-D", "data", "-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-c", "fsync=off"]
        process = subprocess.Popen([programs / "postgres", *start], **common)
        ready = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        while subprocess.run(ready).returncode:
            assert process.poll() is None, "the server did not start"
            time.sleep(0.1)
        yield f"postgresql://tester:secret@127.0.0.1:{port}/postgres"
        process.send_signal(signal.SIGINT)  # at once: the default waits for connections to be closed
        process.wait()


def test_machines_share_a_study(server: str, tmp_path: Path) -> None:
    """Two machines: two folders. One dies; its trial is taken over when its heart has been still for a while."""
    here = open_queue(tmp_path / "here", make_config(trials=2), server, **BEATS)
    with start_victim(tmp_path / "there", server) as (victim, number):
        assert number == 0
        assert here.recover() == 0, "its heart beats"
        victim.kill()
    (lost,) = here.trials(TrialState.RUNNING)
    work(here, measure)  # waits for the grace period
    found = here.trials()
    assert {trial.state for trial in found} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert found[number].params == lost.params
    assert sum(trial.state == TrialState.COMPLETE for trial in found) == 2


def test_a_slow_worker_cannot_overwrite_the_result_of_another(server: str, tmp_path: Path) -> None:
    slow, quick = (
        open_queue(tmp_path / place, make_config(study="slow", trials=1, budgets=None), server, **BEATS)
        for place in ("slow", "quick")
    )
    claim = slow.claim()
    assert claim is not None
    claim.heartbeat.stop()  # its network is gone
    measure(slow, claim.trial)
    work(quick, measure)
    (finished,) = quick.trials()
    slow.finish(claim, "failed", "too late", None)
    assert _only(slow).state == finished.state == TrialState.COMPLETE
    assert _only(slow).user_attrs["outcome"] == "trained"


def _only(queue: Queue) -> Any:
    (trial,) = queue.trials()
    return trial
