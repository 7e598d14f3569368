"""What is taken from inside Optuna is as we know it, and is taken in one file alone; fails when Optuna changes it."""

import ast
import inspect
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Table
from sqlalchemy import inspect as looked_at
from sweep_helpers import make_config, measure, open_queue

from qstudy.sweep import optuna_internals as inside
from qstudy.sweep.budget import Budgets
from qstudy.sweep.patience import OPERATIONS, PatientStorage
from qstudy.sweep.worker import work

PACKAGE = Path(__file__).parents[1] / "qstudy"
PRIVATE = {"_trial_id", "_study_id", "_get_stale_trial_ids", "_storage", "_cached_frozen_trial", "_backend"}


def test_one_file_alone_reaches_into_optuna() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.name == "optuna_internals.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("optuna"):
                assert "._" not in f".{node.module}", f"{path}: {node.module}"
            if isinstance(node, ast.Attribute) and node.attr in PRIVATE:
                assert ast.unparse(node.value) == "self", f"{path}:{node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        (inside.studies, {"study_id", "study_name"}),
        (inside.trials, {"trial_id", "number", "study_id", "state", "datetime_start", "datetime_complete"}),
        (inside.system_attributes, {"trial_system_attribute_id", "trial_id", "key", "value_json"}),
        (inside.user_attributes, {"trial_user_attribute_id", "trial_id", "key", "value_json"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_tables_have_the_columns_that_planning_writes(table: Table, columns: set[str]) -> None:
    """And no others, which planning would leave empty."""
    assert set(table.columns.keys()) == columns


def test_every_transaction_is_tried_again() -> None:
    """A storage's methods that open a session are all among those that wait for a database."""
    opening = {
        name
        for name, method in inspect.getmembers(RDBStorage, inspect.isfunction)
        if "_create_scoped_session" in inspect.getsource(method)
    }
    assert opening - set(OPERATIONS) == set(), "Optuna has new transactions"
    assert all(getattr(PatientStorage, name) is not getattr(RDBStorage, name) for name in OPERATIONS)


def test_silent_trials_are_those_without_a_heart(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, make_config(trials=2), heartbeat_s=1, grace_s=1)
    claim = queue.claim()
    assert claim is not None
    key = inside.trial_id(claim.trial)
    assert inside.silent_trials(queue._storage, queue.study) == set()
    claim.heartbeat.stop()
    with queue._storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_heartbeats SET heartbeat = '2001-01-01 00:00:00'")
    assert inside.silent_trials(queue._storage, queue.study) == {key}
    queue.put_back(claim)


def test_a_trial_is_waiting_again_with_what_it_had(tmp_path: Path) -> None:
    """RUNNING -> WAITING is no way that Optuna documents."""
    queue = open_queue(tmp_path, make_config(trials=1))
    claim = queue.claim()
    assert claim is not None
    measure(queue, claim.trial)
    queue.put_back(claim)
    (waiting,) = queue.trials(TrialState.WAITING)
    again = queue.claim()
    assert again is not None
    assert again.trial.params == waiting.params != {}
    queue.put_back(again)


def test_dashboards_find_the_constraints_and_samplers_keep_their_order(tmp_path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}")
    limits, costs = (
        Budgets(size_bytes=10, latency_ms=4),
        [{"size_bytes": 12, "latency_ms": 3}, {"size_bytes": 9, "latency_ms": 5}],
    )
    for each in costs:
        trial = study.ask()
        for _ in range(2):  # a trial that is continued
            for name, excess in limits.constraints(each).items():
                inside.constrain(trial, name, excess)
        study.tell(trial, 0.5)
    for trial, each in zip(study.trials, costs, strict=True):
        named = limits.constraints(each)
        assert trial.system_attrs["constraints"] == [named["latency_ms"], named["size_bytes"]]
        assert {name: trial.constraints[name] for name in named} == named
        assert sum(max(excess, 0) for excess in trial.constraints.values()) == 2 * sum(
            max(e, 0) for e in named.values()
        )


def test_a_table_of_trials_reads_well(tmp_path: Path) -> None:
    """`trials_dataframe`: objectives by their names, parameters of the grid's trials too, machinery set apart."""
    grid = {"policy": {"name": ["ptq", "fake_qat"], "layers": {"a": [{"weight": 2}, {"weight": 3, "activation": 8}]}}}
    queue = open_queue(tmp_path, make_config(grid=grid, trials=6))
    work(queue, measure)
    frame = queue.study.trials_dataframe()
    assert not {"value_dev_wer", "duration", "state"} - set(frame)
    assert [name for name in frame if name.startswith("user_attrs_")] == [
        *("user_attrs_outcome", "user_attrs_reason", "user_attrs_size_bytes")
    ]
    assert list(frame["params_policy/name"][:4]) == ["ptq", "ptq", "fake_qat", "fake_qat"]
    assert list(frame["params_grid:policy/layers/a/weight"][:4]) == [2, 3, 2, 3]
    assert list(frame["params_policy/layers/a/activation"][:4].fillna(0)) == [0, 8, 0, 8]
    assert frame["params_policy/layers/b/weight"][4:].notna().all()


def test_tables_exist_under_their_names(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, make_config())
    names = set(looked_at(queue._storage.engine).get_table_names())
    assert {t.name for t in (inside.studies, inside.trials, inside.system_attributes, inside.user_attributes)} < names


def comparable(trial: FrozenTrial) -> dict[str, Any]:
    """All of it; NaN is not NaN."""
    return {**vars(trial), "intermediate_values": repr(trial.intermediate_values)}


def test_trials_are_read_as_optuna_reads_them(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, make_config(trials=3))
    work(queue, measure)
    queue.config = make_config(trials=6)
    queue.plan()
    claim = queue.claim()
    assert claim is not None
    measure(queue, claim.trial)
    for step, value in enumerate([0.5, float("nan"), float("inf"), float("-inf")]):
        claim.trial.report(value, step)
    storage, key = queue._storage, inside.study_id(queue.study)
    plain = RDBStorage(str(storage.engine.url))
    for chosen in ((None, set(), -1), (None, {1}, 2), ([TrialState.COMPLETE], set(), -1)):
        ours, theirs = (reader._get_trials(key, *chosen) for reader in (inside.QuickStorage(plain.url), plain))
        assert list(map(comparable, ours)) == list(map(comparable, theirs)) != []
    with pytest.raises(KeyError):
        storage._get_trials(key + 1, None, set(), -1)
    queue.put_back(claim)


def test_planned_trials_are_read_once_and_what_becomes_of_them(tmp_path: Path) -> None:
    here, there = (open_queue(tmp_path, make_config(trials=40)) for _ in range(2))
    key = inside.study_id(here.study)
    assert len(here.trials()) == 40
    claim = there.claim()
    assert claim is not None
    measure(there, claim.trial)
    assert [trial.number for trial in here._storage._get_trials(key, None, set(), 0)] == [claim.trial.number]
    there.put_back(claim)
    assert here.trials()[0].params == there.trials()[0].params != {}
    here.config = make_config(trials=3)
    here.plan()  # drops 37
    assert [trial.state for trial in there.trials()].count(TrialState.WAITING) == 3
    work(there, measure)
    assert [trial.state for trial in here.trials()] == [trial.state for trial in there.trials()]
    assert not here.unfinished()


def test_a_study_that_is_planned_anew_sees_what_it_adds(tmp_path: Path) -> None:
    """SQLite gives it the keys of the one before, which had more trials."""
    open_queue(tmp_path, make_config(trials=40))
    queue = open_queue(tmp_path, make_config(trials=6, budgets={"size_bytes": 11}))
    while claim := queue.claim():
        outcome = measure(queue, claim.trial)
        queue.finish(claim, outcome.kind, outcome.reason, outcome.values)
    assert len(queue.trials()) > 6, "some were over budget, and made place for others"
    assert not queue.unfinished()


def test_ten_thousand_planned_trials_cost_the_next_one_nothing(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, make_config(trials=10_000, budgets=None, sampler="random"))
    queue.trials()
    begin = time.process_time()
    for _ in range(3):
        claim = queue.claim()
        assert claim is not None
        outcome = measure(queue, claim.trial)
        queue.finish(claim, outcome.kind, outcome.reason, outcome.values)
    assert time.process_time() - begin < 3, "each read all that wait, several times: three seconds a time"
