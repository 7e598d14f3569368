"""A study that machines share: PostgreSQL, and workers that are only known by their heartbeats."""

import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from pool_program import use, workers_of
from postgres import FOUND, Server
from sweep_helpers import make_config, measure, open_queue, start_victim
from test_planning import first_sweeps

from qstudy.errors import UserError
from qstudy.sweep.launchers.local import ThisMachine
from qstudy.sweep.objective import Outcome
from qstudy.sweep.patience import PatientStorage
from qstudy.sweep.pool import run_pool
from qstudy.sweep.queue import Queue
from qstudy.sweep.worker import work

pytestmark = pytest.mark.skipif(FOUND is None, reason="needs PostgreSQL's initdb (Debian: postgresql)")
BEATS: dict[str, Any] = {"heartbeat_s": 1, "grace_s": 2}


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    pytest.importorskip("psycopg", reason="needs psycopg (the extra `sweep`)")
    with tempfile.TemporaryDirectory() as name:
        server = Server(Path(name))
        yield server
        server.stop(signal.SIGQUIT)  # nobody needs its data any more


@pytest.fixture
def server(running: Server, request: pytest.FixtureRequest) -> str:
    """URL of an empty database."""
    return running.database(request.node.name)


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


def test_first_sweeps_at_once_plan_one_study(server: str, tmp_path: Path) -> None:
    first_sweeps(tmp_path, server)


def test_a_server_that_is_restarted_costs_nothing(
    running: Server, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = open_queue(tmp_path, make_config(trials=3), server, **BEATS)
    running.stop()
    back = threading.Timer(3, running.start)
    back.start()
    try:
        work(queue, measure)
    finally:
        back.join()
    assert queue.done() == 3
    assert capsys.readouterr().err.count("does not answer") == 1


def test_a_trial_outlives_ten_seconds_without_a_database(running: Server, server: str, tmp_path: Path) -> None:
    """Its heart beats on, so that no other machine takes it over."""
    config = make_config(trials=1, budgets=None)
    here, there = (open_queue(tmp_path / place, config, server, **BEATS) for place in ("here", "there"))
    claim = here.claim()
    assert claim is not None
    running.stop()
    time.sleep(10)
    running.start()
    outcome = measure(here, claim.trial)
    time.sleep(2 * BEATS["grace_s"])
    assert claim.heartbeat.is_alive()
    assert there.claim() is None
    here.finish(claim, outcome.kind, outcome.reason, outcome.values)
    assert _only(there).state == TrialState.COMPLETE


def test_a_pool_outlives_a_restart(
    running: Server, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(tmp_path, monkeypatch)
    (tmp_path / "behave").write_text("slowly")
    config = make_config(trials=4, budgets=None, base={"data": {"train": "train.jsonl", "dev": "dev.jsonl"}})
    queue = open_queue(tmp_path, config, server)

    def restart() -> None:
        while not workers_of(tmp_path):
            time.sleep(0.05)
        running.stop()
        time.sleep(3)
        running.start()

    restarted = threading.Thread(target=restart)
    restarted.start()
    run_pool(queue, ThisMachine(), 2, server)
    restarted.join()
    assert sum(trial.state == TrialState.COMPLETE for trial in queue.trials()) == 4
    said = capsys.readouterr()
    assert "takes its place" not in said.out + said.err


def test_a_server_that_stays_away_is_one_sentence_without_its_password(
    running: Server, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = open_queue(tmp_path, make_config(trials=3), server, **BEATS)
    claim = queue.claim()
    assert claim is not None
    running.stop()
    try:
        queue.put_back(claim)  # on the way out nobody waits
        monkeypatch.setattr(PatientStorage, "patience_s", 1.0)
        with pytest.raises(UserError, match=r"storage has not answered for \d s \(.*refused") as caught:
            work(queue, measure)
    finally:
        running.start()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_worker_whose_trial_another_has_finished_goes_on(server: str, tmp_path: Path) -> None:
    slow, quick = (open_queue(tmp_path / place, make_config(trials=2), server, **BEATS) for place in ("slow", "quick"))

    def overtaken(queue: Queue, trial: optuna.Trial) -> Outcome:
        outcome = measure(queue, trial)
        if trial.number == 0:
            quick.study.tell(trial.number, values=[0.5])
        return outcome

    work(slow, overtaken)
    assert not slow.unfinished()
    assert slow.trials()[0].values == [0.5]


def _only(queue: Queue) -> Any:
    (trial,) = queue.trials()
    return trial
