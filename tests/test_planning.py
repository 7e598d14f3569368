"""Planning: exclusive, whole or not at all, and quick; several folders, and several who begin at once."""

import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from sweep_helpers import make_config, measure, open_queue, start_victim

from qstudy.errors import UserError
from qstudy.sweep.optuna_internals import kept
from qstudy.sweep.patience import PatientStorage
from qstudy.sweep.storage import open_storage
from qstudy.sweep.trials import GRID
from qstudy.sweep.worker import work
from qstudy.training import assets
from qstudy.training.config import config_from_dict


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What the calls return, all of which begin together in threads of their own; an error is a result too."""
    barrier, results = threading.Barrier(len(calls)), [None] * len(calls)

    def run(index: int) -> None:
        barrier.wait()
        try:
            results[index] = calls[index]()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def first_sweeps(root: Path, url: str) -> None:
    """Four sweeps in four folders begin one study in an empty database; then all of them ask for more."""
    config = make_config(trials=6)
    queues = at_once(*(lambda place=place: open_queue(root / str(place), config, url) for place in range(4)))
    assert not [queue for queue in queues if isinstance(queue, Exception)]
    assert [trial.number for trial in queues[0].trials()] == list(range(6))
    for wanted in (9, 12, 20):
        for queue in queues:
            queue.config = make_config(trials=wanted)
        at_once(*(queue.plan for queue in queues))
        assert [trial.number for trial in queues[0].trials()] == list(range(wanted))


def test_planners_at_once_plan_one_study(tmp_path: Path) -> None:
    first_sweeps(tmp_path, f"sqlite:///{tmp_path / 'shared.db'}")


def test_a_thousand_trials_are_planned_in_seconds(tmp_path: Path) -> None:
    layers = {layer: {"weight": list(range(2, 12))} for layer in "abc"}
    config = make_config(grid={"policy": {"name": "mixed", "layers": layers}}, trials=1200)
    before = time.process_time()
    queue = open_queue(tmp_path, config)
    assert time.process_time() - before < 10
    trials = queue.trials()
    assert [trial.number for trial in trials] == list(range(1200))
    assert [kept(trial).get(GRID) for trial in trials] == [*range(1000), *[None] * 200]
    assert queue.config.combinations.changes[999]["policy"]["layers"]["c"] == {"weight": 11}


def test_a_full_disk_plans_nothing_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PatientStorage, "patience_s", 0.2)
    queue = open_queue(tmp_path, make_config(trials=2))
    queue.config = make_config(trials=1000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    try:
        with pytest.raises(
            UserError, match=r"storage has not answered for . s \((disk I/O error|database or disk is full)\)"
        ):
            queue.plan()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(queue.trials()) == 2
    queue.plan()
    assert len(queue.trials()) == 1000


def test_two_folders_on_one_sqlite_file_keep_their_trials_apart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    here = open_queue(tmp_path / "here", make_config(trials=2), url)
    with start_victim(tmp_path / "there", url) as (victim, number):
        claim = here.claim()
        assert claim is not None
        assert claim.trial.number != number, "the other one is alive"
        here.put_back(claim)
        victim.kill()
        victim.wait()
        assert here.recover() == 1
    work(here, measure)
    assert not here.trials(TrialState.WAITING, TrialState.RUNNING)


def test_an_extended_plan_of_another_sweep_is_not_lost(tmp_path: Path) -> None:
    """One folder asks for more while the other's sweep has not begun a trial: nothing is made anew under it."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    first = open_queue(tmp_path / "first", make_config(trials=2), url)
    second = open_queue(tmp_path / "second", make_config(trials=4), url)
    assert len(first.trials()) == len(second.trials()) == 4


def test_a_study_that_was_removed_is_told(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, make_config(trials=2))
    optuna.delete_study(study_name="toy", storage=queue._storage)
    for used in (queue.plan, lambda: work(queue, measure)):
        with pytest.raises(UserError, match="'toy' is no longer in its storage: somebody removed it"):
            used()


def test_a_locked_database_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("qstudy.sweep.storage.LOCKED_S", 0.5)
    queue = open_queue(tmp_path, make_config(trials=2))
    other = open_storage(None, tmp_path / "toy")
    with other.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
        release = threading.Timer(3, connection.exec_driver_sql, ["ROLLBACK"])
        release.start()
        queue.config = make_config(trials=3)
        queue.plan()
        release.join()
    assert len(queue.trials()) == 3
    told = capsys.readouterr().err
    assert told.count("storage does not answer (database is locked); trying again for up to 60 s.") == 1


def test_two_make_one_corpus_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Threads, which the lock keeps apart as it does processes: each opens its file anew."""
    monkeypatch.chdir(tmp_path)
    commands, makers = assets._make_corpus, []

    def slow(*recipe: Any) -> None:
        makers.append(threading.current_thread())
        time.sleep(2)  # the other one asks meanwhile
        commands(*recipe)

    monkeypatch.setattr(assets, "_make_corpus", slow)
    make = {"corpus": "commands", "out": "corpus", "train": 8, "dev": 2, "test": 2, "processes": 1}
    config = config_from_dict({"data": {"train": "corpus/train.jsonl", "dev": "corpus/dev.jsonl", "make": make}})
    assert at_once(*[lambda: assets.make_corpus(config)] * 2) == [None, None]
    assert len(makers) == 1
    assert capsys.readouterr().out.count("The manifests are in corpus") == 1
    assert len((tmp_path / "corpus" / "train.jsonl").read_text().splitlines()) == 8
