"""Studies: their YAML, and the queue of trials that survives its workers."""

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState
from sweep_helpers import make_config, measure, open_queue, small_study, start_victim

from qstudy.commands.sweep import sweep
from qstudy.commands.worker import worker
from qstudy.errors import UserError
from qstudy.locks import locked, try_lock
from qstudy.sweep import objective
from qstudy.sweep.config import load_study
from qstudy.sweep.decoding.search_study import load_search_study
from qstudy.sweep.objective import Outcome
from qstudy.sweep.optuna_internals import trial_id
from qstudy.sweep.planning import retry_failed
from qstudy.sweep.queue import SWEEP_LOCK, Queue
from qstudy.sweep.status import print_status, read_status
from qstudy.sweep.storage import open_storage
from qstudy.sweep.study import LOOK_S, check
from qstudy.sweep.summary import print_summary
from qstudy.sweep.trials import OUTCOME
from qstudy.sweep.worker import work
from qstudy.training.config import RunConfig, to_dict
from qstudy.training.price import Price
from qstudy.training.record import Record, read_records
from qstudy.yaml_file import load_yaml

ROOT = Path(__file__).parents[1]
BASE = {"data": {"train": "train.jsonl", "dev": "dev.jsonl"}, "track": False}
ENDED = {TrialState.COMPLETE, TrialState.PRUNED}


def outcomes(queue: Queue) -> list[str]:
    return [trial.user_attrs.get(OUTCOME, trial.state.name) for trial in queue.trials()]


def test_over_budget_candidates_cost_no_trial(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, make_config(trials=6))
    work(queue, measure)
    found = outcomes(queue)
    assert found.count("trained") == 6
    assert found.count("over_budget") == len(found) - 6 > 0
    for trial in queue.trials():
        assert trial.state == (TrialState.COMPLETE if trial.user_attrs[OUTCOME] == "trained" else TrialState.PRUNED)
        assert (trial.constraints["size_bytes"] > 0) == (trial.state == TrialState.PRUNED)


@pytest.mark.parametrize(
    ("fields", "candidates"),
    [({"candidates": 9}, 9), ({"space": {"policy": {"name": "mixed", "layers": {"a": {"weight": [13, 14]}}}}}, None)],
    ids=["candidates", "the whole space was tried"],
)
def test_a_budget_that_nothing_meets_ends(tmp_path: Path, fields: dict[str, Any], candidates: int | None) -> None:
    queue = open_queue(tmp_path, make_config(budgets={"size_bytes": 5}, **fields))
    work(queue, measure)
    assert set(outcomes(queue)) == {"over_budget"}
    assert candidates is None or len(queue.trials()) == candidates


def test_the_grid_comes_first_and_in_order(tmp_path: Path) -> None:
    grid = {"policy": {"name": ["ptq", "fake_qat"], "layers": {"a": [{"weight": 4}, {"weight": 20}]}}}
    queue = open_queue(tmp_path, make_config(grid=grid, trials=4))
    work(queue, measure)
    shown = [trial.params for trial in queue.trials()[:4]]
    assert [(each["policy/name"], each["grid:policy/layers/a/weight"]) for each in shown] == [
        ("ptq", 4),
        ("ptq", 20),
        ("fake_qat", 4),
        ("fake_qat", 20),
    ]
    assert outcomes(queue)[:4] == ["trained", "over_budget", "trained", "over_budget"]
    assert outcomes(queue).count("trained") == 4


def test_a_grid_alone_is_a_study(tmp_path: Path) -> None:
    grid = {"policy": {"name": ["ptq", "fake_qat"], "layers": {"a": {"weight": [2, 3, 4]}}}}
    queue = open_queue(tmp_path, make_config(space=None, trials=None, grid=grid))
    work(queue, measure)
    assert outcomes(queue) == ["trained"] * 6


def test_more_trials_go_on_where_the_study_ended(tmp_path: Path) -> None:
    work(open_queue(tmp_path, make_config(trials=2)), measure)
    queue = open_queue(tmp_path, make_config(trials=5))
    before = [trial.params for trial in queue.trials() if trial.state in ENDED]
    work(queue, measure)
    assert outcomes(queue).count("trained") == 5
    assert [trial.params for trial in queue.trials()][: len(before)] == before


def test_fewer_trials_end_the_study_earlier(tmp_path: Path) -> None:
    grid = {"policy": {"name": "ptq", "layers": {"a": {"weight": [2, 3, 4, 8]}}}}
    begun = open_queue(tmp_path, make_config(grid=grid, trials=8))
    first = begun.claim()
    assert first is not None
    begun.put_back(first)
    queue = open_queue(tmp_path, make_config(grid=grid, trials=3))
    work(queue, measure)
    assert outcomes(queue) == ["trained"] * 3 + ["dropped"] * 5
    again = open_queue(tmp_path, make_config(grid=grid, trials=4))
    work(again, measure)
    assert outcomes(again) == ["trained"] * 3 + ["dropped"] * 5 + ["trained"]
    assert again.trials()[-1].params == {"grid:policy/layers/a/weight": 8}


def test_dropped_trials_are_no_candidates_that_were_looked_at(tmp_path: Path) -> None:
    for trials in (12, 2):
        open_queue(tmp_path, make_config(trials=trials, candidates=14))
    queue = open_queue(tmp_path, make_config(trials=12, candidates=14))
    assert queue.unfinished() == 12


def test_interruptions_do_not_change_what_is_tried(tmp_path: Path) -> None:
    """The same study, once in one go and once with a Ctrl-C in the middle of every third trial."""
    whole = open_queue(tmp_path / "whole", make_config())
    work(whole, measure)
    broken = open_queue(tmp_path / "broken", make_config())
    calls = 0

    def interrupted(queue: Queue, trial: optuna.Trial) -> Outcome:
        nonlocal calls
        calls += 1
        outcome = measure(queue, trial)
        if calls % 3 == 0:
            raise KeyboardInterrupt
        return outcome

    stops = 0
    while broken.unfinished():
        try:
            work(broken, interrupted)
        except KeyboardInterrupt:
            stops += 1
            assert not broken.trials(TrialState.RUNNING)
    assert stops > 1
    assert [trial.params for trial in broken.trials()] == [trial.params for trial in whole.trials()]
    assert outcomes(broken) == outcomes(whole)


def test_a_users_mistake_stops_the_study_and_keeps_the_trial(tmp_path: Path) -> None:
    def full(queue: Queue, trial: optuna.Trial) -> Outcome:
        raise UserError("Cannot write: no space left.")

    queue = open_queue(tmp_path, make_config(trials=2))
    with pytest.raises(UserError, match="no space left"):
        work(queue, full)
    assert [trial.state for trial in queue.trials()] == [TrialState.WAITING] * 2


def test_a_study_in_which_nothing_works_stops(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, make_config())
    with pytest.raises(UserError, match="3 trials failed and none has worked, the last with: no loss"):
        work(queue, lambda queue, trial: Outcome("failed", "no loss"))
    assert outcomes(queue) == ["failed"] * 3 + ["WAITING"] * 2


def test_the_trial_of_a_killed_worker_goes_on_with_its_number_and_parameters(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, make_config(trials=2))
    with start_victim(tmp_path) as (victim, number):
        assert queue.recover() == 0, "it lives"
        victim.kill()
    (running,) = queue.trials(TrialState.RUNNING)
    claim = queue.claim()
    assert claim is not None
    assert claim.trial.number == running.number == number
    assert claim.trial.params == running.params
    outcome = measure(queue, claim.trial)
    queue.finish(claim, outcome.kind, outcome.reason, outcome.values)
    assert queue.trials()[number].state in ENDED
    work(queue, measure)
    assert {trial.state for trial in queue.trials()} == ENDED


@pytest.fixture
def small(corpus: Path, tmp_path: Path) -> Callable[..., Path]:
    return partial(small_study, corpus, tmp_path)


def test_what_a_policy_refuses_is_not_trained_and_does_not_count(
    small: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each width has others that it goes with, so the check passes; a mixture of 8 and 32 bits is none."""
    layers = {"joiner.*": {"weight": [8, 32], "activation": [8, 32]}}
    space = {"policy": {"name": "accelerator_aware", "layers": layers}}
    file = small(grid=[], space=space, trials=2, candidates=60, sampler="random")
    sweep(file, root=tmp_path / "studies")
    found = study_of(tmp_path / "studies" / "small").trials
    ended = [trial.user_attrs[OUTCOME] for trial in found]
    assert ended.count("trained") == 2
    refused = [trial for trial in found if trial.user_attrs[OUTCOME] == "refused"]
    assert refused
    assert all(trial.constraints["refused"] > 0 and set(trial.params.values()) == {8, 32} for trial in refused)
    said = capsys.readouterr().out
    assert "accelerator_aware needs weights and activations of 2 to 8 bits" in said
    assert f"{len(refused)} refused" in said


def test_two_objectives_from_yaml_to_summary(
    small: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(small(objectives=["wer", "size_bytes"]), root=tmp_path / "studies")
    records = read_records(tmp_path / "studies" / "small")
    found = study_of(tmp_path / "studies" / "small").trials
    assert [trial.values for trial in found] == [[r.metrics["dev"]["wer"], r.size_bytes] for r in records]
    shown = capsys.readouterr().out
    assert "Study small: 3 of 3 trials trained." in shown
    assert f"{records[2].size_bytes:,}" in shown
    assert f"qstudy report {tmp_path / 'studies' / 'small'}" in shown


def test_a_hopeless_trial_is_stopped_and_says_why(
    small: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainings are made up: what matters is what becomes of the error rates that they report."""

    def pretend(config: RunConfig, folder: Path, **options: Any) -> Record:
        wer = {8: 0.1, 4: 0.2, 2: 0.9}[config.policy["layers"]["*"]["weight"]]
        options["report"](2, wer)
        return Record(run=folder.name, state="complete", policy="fake_qat", metrics={"dev": {"wer": wer}}, size_bytes=1)

    monkeypatch.setattr("qstudy.sweep.objective.run", pretend)
    monkeypatch.setattr("qstudy.sweep.study.prepare", lambda config: None)
    sweep(small(pruning={"startup": 2}), root=tmp_path / "studies")
    found = study_of(tmp_path / "studies" / "small").trials
    assert [trial.user_attrs[OUTCOME] for trial in found] == ["trained", "trained", "stopped"]
    (record,) = read_records(tmp_path / "studies" / "small")
    assert (record.trial, record.state) == (2, "pruned")
    assert record.reason == "stopped at step 2: dev WER 90.0% is too high beside the others'"


def study_of(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder / 'study.db'}")


def test_a_living_worker_keeps_its_trial(tmp_path: Path) -> None:
    mine, other = (open_queue(tmp_path, make_config(trials=2)) for _ in range(2))
    first, second = mine.claim(), other.claim()
    assert first is not None
    assert second is not None
    assert {first.trial.number, second.trial.number} == {0, 1}
    assert mine.claim() is None
    mine.put_back(first)
    again = other.claim()
    assert again is not None
    assert again.trial.number == first.trial.number
    other.put_back(again)
    other.put_back(second)


def test_a_study_that_has_begun_cannot_become_another(tmp_path: Path) -> None:
    open_queue(tmp_path, make_config())
    queue = open_queue(tmp_path, make_config(budgets={"size_bytes": 11}))  # only planned yet
    work(queue, measure)
    with pytest.raises(UserError, match=r"'toy' was begun with another space and budgets"):
        open_queue(tmp_path, make_config(space={"policy": {"name": ["mixed"]}}, budgets={"size_bytes": 10}))


def test_another_order_of_patterns_is_another_study() -> None:
    """The last match wins: every layer has 8 bits in one of them."""
    layers = {"*": {"weight": [3, 4]}, "a": {"weight": 8}}
    spaces = [{"policy": {"name": "mixed", "layers": each}} for each in (layers, dict(reversed(layers.items())))]
    one, other = (make_config(space=space) for space in spaces)
    assert one.differences(other) == ["space"]


def test_a_refused_retry_changes_nothing(corpus: Path, tmp_path: Path) -> None:
    root, grid = tmp_path / "studies", {"policy": {"name": "fake_qat", "layers": {"*": {"weight": [8, 4]}}}}
    sweep(small_study(corpus, tmp_path, grid=grid), root=root, trials=1)
    with open_storage(None, root / "small").engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_user_attributes SET value_json='\"failed\"' WHERE key='outcome'")
    with pytest.raises(UserError, match="begun with another base"):
        sweep(small_study(corpus, tmp_path, grid=grid, base={"seed": 3}), root=root, retry=True)
    assert study_of(root / "small").trials[0].state == TrialState.COMPLETE


def test_a_policy_that_breaks_while_a_proposal_is_priced_costs_that_proposal(
    small: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    priced = objective.price

    def price(config: RunConfig) -> Price:
        if {each["weight"] for each in config.policy["layers"].values()} == {3, 8}:
            raise KeyError("nothing for 3 beside 8")
        return priced(config)

    monkeypatch.setattr(objective, "price", price)
    layers = {"encoder.*": {"weight": [3, 8]}, "joiner.*": {"weight": [3, 8]}}
    space = {"policy": {"name": "fake_qat", "layers": layers}}
    sweep(small(grid=[], space=space, trials=2, candidates=60, sampler="random"), root=tmp_path / "studies")
    found = study_of(tmp_path / "studies" / "small").trials
    ended = [(trial.user_attrs[OUTCOME], len(set(trial.params.values()))) for trial in found]
    assert ended.count(("trained", 1)) == 2
    assert {outcome for outcome, widths in ended if widths == 2} <= {"refused"}


def test_a_field_that_a_later_version_added_makes_no_other_study() -> None:
    """The base is stored as it was resolved then; who updates goes on with the study."""
    before = make_config(base=BASE)
    now = replace(before, base=json.loads(json.dumps(to_dict(before.base_run))))
    assert now.base != before.base
    assert now.differences(before) == before.differences(now) == []
    assert replace(now, base={**now.base, "seed": 3}).differences(before) == ["base"]


def test_runs_of_a_lost_study_are_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "toy" / "runs" / "trial-0000-mixed").mkdir(parents=True)
    with pytest.raises(UserError, match="holds runs that are not in the storage"):
        open_queue(tmp_path, make_config())


def test_one_sweep_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({"study": "toy", "base": BASE, "grid": {"policy": {"name": "float"}}}))
    with locked(tmp_path / "toy" / SWEEP_LOCK), pytest.raises(UserError, match="already running here"):
        sweep(file, root=tmp_path)


def test_a_study_may_be_named_sweep(tmp_path: Path) -> None:
    with locked(tmp_path / "sweep" / SWEEP_LOCK):
        queue = open_queue(tmp_path, make_config(study="sweep", trials=1, budgets=None))
        work(queue, measure)
    assert outcomes(queue) == ["trained"]


def test_a_look_is_no_sweep(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    seen = try_lock(path)
    assert seen is not None
    threading.Timer(0.1, seen.close).start()
    assert try_lock(path) is None
    mine = try_lock(path, LOOK_S)
    assert mine is not None
    mine.close()


def test_failed_trials_wait_again_when_asked(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, make_config(trials=3, budgets=None))
    broken = {1}

    def evaluate(queue: Queue, trial: optuna.Trial) -> Outcome:
        outcome = measure(queue, trial)
        return Outcome("failed", "out of memory") if trial.number in broken else outcome

    work(queue, evaluate)
    before = outcomes(queue)
    assert before[1] == "failed"
    work(open_queue(tmp_path, make_config(trials=3, budgets=None)), evaluate)
    assert outcomes(queue) == before
    broken.clear()
    params = queue.trials()[1].params
    assert retry_failed(open_storage(None, tmp_path / "toy"), "toy") == 1
    again = open_queue(tmp_path, make_config(trials=3, budgets=None))
    assert [trial.number for trial in again.trials(TrialState.WAITING)] == [1]
    work(again, evaluate)
    assert outcomes(again) == [*before[:1], "trained", *before[2:]]
    assert again.trials()[1].params == params
    assert "reason" not in again.trials()[1].user_attrs


def test_a_worker_at_work_sees_failed_trials_that_wait_again(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, make_config(trials=2, budgets=None))
    work(queue, lambda queue, trial: Outcome("failed", "out of memory") if trial.number else measure(queue, trial))
    assert outcomes(queue) == ["trained", "failed"]
    retry_failed(open_storage(None, tmp_path / "toy"), "toy")
    assert queue.has_work()
    claim = queue.claim()
    assert claim is not None
    outcome = measure(queue, claim.trial)
    queue.finish(claim, outcome.kind, outcome.reason, outcome.values)
    assert outcomes(queue) == ["trained", "trained"]
    assert not queue.has_work()


def test_a_trial_that_waits_again_elsewhere_is_finished_where_it_was_trained(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, make_config(trials=1, budgets=None))
    claim = queue.claim()
    assert claim is not None
    outcome = measure(queue, claim.trial)
    storage = open_storage(None, tmp_path / "toy")
    storage.set_trial_state_values(trial_id(claim.trial), TrialState.WAITING)  # as another machine's `recover`
    queue.finish(claim, outcome.kind, outcome.reason, outcome.values)
    assert outcomes(queue) == ["trained"]


def test_who_looked_at_all_candidates_is_not_told_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queue = open_queue(tmp_path, make_config(budgets={"size_bytes": 5}, candidates=3))
    print_status(read_status("toy", tmp_path / "toy", None))
    assert "goes on" in capsys.readouterr().out
    work(queue, measure)
    print_status(read_status("toy", tmp_path / "toy", None))
    assert "It has looked at all candidates that it may" in capsys.readouterr().out


def test_what_an_earlier_study_left_on_a_machine_is_not_taken_for_the_new_ones(
    small: Callable[..., Path], tmp_path: Path
) -> None:
    database, here, there = f"sqlite:///{tmp_path / 'shared.db'}", tmp_path / "here", tmp_path / "there"
    sweep(small(base={"start": "scratch"}), root=here, storage=database, trials=1)
    shutil.move(here, there)
    optuna.delete_study(study_name="small", storage=database)
    file = small(base={"start": "scratch", "training": {"steps": 3, "batch_size": 8}})
    sweep(file, root=here, storage=database, trials=1, prepare_only=True)
    left = there / "small" / "runs"
    with pytest.raises(UserError, match=f"record.json is of a run with another training, .* move or remove {left}"):
        worker("small", storage=database, root=there)
    shutil.rmtree(left)
    worker("small", storage=database, root=there)
    (record,) = read_records(there / "small")
    assert record.config["training"]["steps"] == 3
    optuna.delete_study(study_name="small", storage=database)
    sweep(file, root=here, storage=database, trials=1, prepare_only=True)
    worker("small", storage=database, root=there)
    assert read_records(there / "small") == [record], "the same run is not trained again"


def test_a_trial_that_is_just_ending_has_not_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queue = open_queue(tmp_path, make_config(trials=2, budgets=None))
    claim = queue.claim()
    assert claim is not None
    measure(queue, claim.trial)
    claim.trial.set_user_attr(OUTCOME, "trained")  # as `finish`, before it tells the values
    status = read_status("toy", tmp_path / "toy", None)
    assert (status.outcomes, status.trained) == ({"running": 1, "waiting": 1}, [])
    print_status(status)
    queue.put_back(claim)
    print_summary("toy", queue.trials(), tmp_path / "toy")
    assert "Study toy: 0 of 2 trials trained, 2 unfinished." in capsys.readouterr().out


def test_what_does_not_work_shows_before_anything_is_trained(corpus: Path, tmp_path: Path) -> None:
    """A start that one member of the grid does not fit, an accelerator that nobody simulates, an unknown cost."""
    start = {"from": str(ROOT / "sweeps" / "base" / "commands.yaml"), "start": str(ROOT / "sweeps/base/commands.qst")}
    policy = {"name": "ptq", "layers": {"*": {"weight": 8}}}

    def checked(**fields: Any) -> None:
        file = tmp_path / "study.yaml"
        file.write_text(yaml.safe_dump({"study": "toy", "base": start, **fields}))
        check(load_study(file))

    checked(grid={"policy": policy, "model": {"encoder": {"hidden": [256]}}})
    with pytest.raises(UserError, match=r"start: .* differs in model\.encoder\.hidden \(256 there, 128 here\)"):
        checked(grid={"policy": policy, "model": {"encoder": {"hidden": [256, 128]}}})
    with pytest.raises(UserError, match="budgets: accelerator: 'nosuch' is not among those"):
        checked(grid={"policy": policy}, budgets={"accelerator": "nosuch"})
    coded = {"name": "s8bqat", "layers": {"*": {"weight": [4, 2]}}}
    with pytest.raises(UserError, match="s8bqat cannot be switched"):
        checked(space={"policy": coded}, trials=2, screening={})
    mixture = {"name": "accelerator_aware", "layers": {"joiner.*": {"weight": [8, 32], "activation": [8, 32]}}}
    with pytest.raises(UserError, match="accelerator_aware needs weights and activations of 2 to 8 bits"):
        checked(space={"policy": mixture}, trials=2, screening={})


def test_a_study_from_scratch_makes_no_baseline_and_notices_other_data(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "corpus"
    shutil.copytree(corpus, mine)
    file = small_study(mine, tmp_path, base={"start": "scratch"})
    sweep(file, root=tmp_path / "studies", trials=1)
    (record,) = read_records(tmp_path / "studies" / "small")
    assert record.baseline is None
    assert not (tmp_path / "cache" / "baselines").exists()
    dev = (mine / "dev.jsonl").read_text().splitlines(keepends=True)
    (mine / "dev.jsonl").write_text("".join(dev[:2]))
    with pytest.raises(UserError, match=r"data: dev: .*dev\.jsonl is not what it was when the study 'small' was begun"):
        sweep(file, root=tmp_path / "studies", trials=2)
    (mine / "dev.jsonl").write_text("".join(dev))
    sweep(file, root=tmp_path / "studies", trials=2)
    assert len(read_records(tmp_path / "studies" / "small")) == 2


def test_the_command_for_more_workers_names_the_studies_folder(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(small_study(corpus, tmp_path, base={"start": "scratch"}), root=tmp_path / "mine", prepare_only=True)
    assert f"qstudy worker --study small --root {tmp_path / 'mine'}" in capsys.readouterr().out


def test_a_worker_needs_a_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no .*study\.db; begin the study with `qstudy sweep`"):
        worker("nothing", root=tmp_path)
    empty = tmp_path / "empty.db"
    with pytest.raises(UserError, match=r"there is no .*empty\.db"):
        worker("nothing", storage=f"sqlite:///{empty}", root=tmp_path)
    assert not empty.exists()
    empty.touch()
    with pytest.raises(UserError, match="'nothing' is not in this storage"):
        worker("nothing", storage=f"sqlite:///{empty}", root=tmp_path)


def test_a_storage_that_is_away_is_an_error_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"postgresql://me:\*\*\*@127.0.0.1:1/x cannot be opened") as caught:
        worker("toy", storage="postgresql://me:secret@127.0.0.1:1/x", root=tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spaces": {}}, "spaces: there is no such field (did you mean 'space'?); fields are study, base, grid"),
        ({"study": "../x"}, "study: '../x' cannot name a file"),
        ({"base": None}, "base: None should be a mapping"),
        ({"base": {**BASE, "stps": 3}}, "stps"),
        ({"grid": None, "space": None}, "a study needs a `space`"),
        ({"space": {"policy": {"name": "mixed"}}, "trials": None}, "trials: say how many"),
        ({"trials": 0}, "trials: 0 should be greater than or equal to 1"),
        (
            {"budgets": {"bytes": 3}},
            "budgets.bytes: there is no such field; fields are size_bytes, latency_ms, accelerator",
        ),
        ({"budgets": {"size_bytes": -3}}, "budgets.size_bytes: -3 should be greater than 0"),
        ({"sampler": "bayes"}, "sampler.name: 'bayes' is not one of tpe, random, nsga2"),
        ({"sampler": {"name": "tpe", "seed": "x"}}, "sampler.seed: 'x' should be a valid integer"),
        ({"sampler": "nsga2"}, "sampler: nsga2 crosses candidates that it proposed itself"),
        ({"objectives": ["size_bytes"]}, "objectives: the first one must be wer"),
        ({"objectives": ["wer", "size_bytes"], "pruning": {}}, "pruning: trials are stopped early by wer alone"),
        ({"grid": ["ptq"]}, "grid.0: 'ptq' should be a mapping"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    values = {"study": "toy", "base": BASE, "grid": {"policy": {"name": ["ptq"]}}, **changes}
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(UserError) as caught:
        load_study(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_mistakes_in_a_policy_show_before_anything_runs(tmp_path: Path) -> None:
    space = {"policy": {"name": "mixed", "layers": {"encodr.*": {"weight": [4, 8]}}}}
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({"study": "toy", "base": BASE, "space": space, "trials": 3}))
    with pytest.raises(UserError, match=r"space: .*'encodr.\*' matches no layer"):
        sweep(file, root=tmp_path / "studies")
    assert not (tmp_path / "studies").exists()


def test_a_study_is_like_another_on_a_changed_base(tmp_path: Path) -> None:
    grid = {"policy": {"name": "ptq", "layers": {"*": {"weight": [4, 8]}}}}
    files = {
        "one.yaml": {**BASE, "finetune": {"steps": 9, "clip": 3.0}},
        "two.yaml": {"data": {"train": "other.jsonl", "dev": "dev.jsonl"}},
        "first.yaml": {"study": "first", "base": {"from": "one.yaml", "finetune": {"steps": 5}}, "grid": grid},
        "second.yaml": {"study": "second", "like": "first.yaml", "base": "two.yaml"},
        "third.yaml": {"study": "third", "like": "second.yaml"},
    }
    for name, fields in files.items():
        (tmp_path / name).write_text(yaml.safe_dump(fields))
    first, second = (load_study(tmp_path / name) for name in ("first.yaml", "second.yaml"))
    assert (first.base["finetune"]["steps"], first.base["finetune"]["clip"]) == (5, 3.0)
    assert (second.study, second.grid, second.base["data"]["train"]) == ("second", first.grid, "other.jsonl")
    with pytest.raises(UserError, match=r"like: second.yaml is itself like another study"):
        load_study(tmp_path / "third.yaml")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "fourth.yaml").write_text(yaml.safe_dump({"study": "fourth", "like": "../first.yaml"}))
    assert load_study(tmp_path / "elsewhere" / "fourth.yaml").base == first.base


STUDIES = sorted((ROOT / "sweeps").glob("*.yaml"))
SEARCHES = [file for file in STUDIES if "models" in load_yaml(file)]
"""Of searches, for `qstudy decode`."""


@pytest.mark.parametrize("file", SEARCHES, ids=lambda file: file.stem)
def test_the_studies_of_searches_that_come_with_the_project_can_be_read(file: Path) -> None:
    config = load_search_study(file)
    assert config.study == file.stem
    assert len(config.cells) == 2 * 3 * 6


@pytest.mark.parametrize("file", [file for file in STUDIES if file not in SEARCHES], ids=lambda file: file.stem)
def test_the_studies_that_come_with_the_project_can_run(file: Path) -> None:
    config = load_study(file)
    check(config)
    assert config.study == file.stem
    assert config.wanted >= {
        "smoke": 5,
        "quickstart": 10,
        "digits": 15,
        "policies-digits": 66,
        "policies-commands": 66,
    }.get(file.stem, 1)
