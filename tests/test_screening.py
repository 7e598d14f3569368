"""Screening: candidates judged before any is trained, on toys and on a small study of real speech."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
import yaml
from sweep_helpers import make_config, measure, open_queue, small_study

from qstudy.commands.sensitivity import sensitivity
from qstudy.commands.sweep import sweep
from qstudy.errors import UserError
from qstudy.files import file_hash, read_json
from qstudy.locks import locked
from qstudy.pareto import hypervolume
from qstudy.quant.layers import quantizable
from qstudy.quant.packed.model import PackedModel
from qstudy.quant.policies import build_policy
from qstudy.sweep.config import Pruning, load_study
from qstudy.sweep.samplers import make_pruner
from qstudy.sweep.screening.allocations import Allocations, Member
from qstudy.sweep.screening.exploration import explore, foretell, on_front
from qstudy.sweep.screening.judge import Judge, spread
from qstudy.sweep.screening.screen import Screen, screen_of
from qstudy.sweep.study import check
from qstudy.sweep.trials import OUTCOME, SCREENED
from qstudy.sweep.worker import work
from qstudy.training.checkpoint import load_checkpoint
from qstudy.training.price import price
from qstudy.training.record import read_record, read_records

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS = {"encoder.*": {"weight": [2, 4, 8]}, "joiner.*": {"weight": [2, 8]}}
SPACE = {"policy": {"name": "mixed", "layers": {"*": {"activation": 8}, **LAYERS}}}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features and float models, which no test has to make again."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def small(corpus: Path, tmp_path: Path, cache: Path) -> Callable[..., Path]:
    """A study of six allocations, of which two are trained."""
    fields = {"grid": [], "space": SPACE, "trials": 2, "objectives": ["wer", "size_bytes"]}

    def write(base: dict[str, Any] | None = None, **more: Any) -> Path:
        return small_study(corpus, tmp_path, base={"cache": str(cache), **(base or {})}, **{**fields, **more})

    return write


# Exploration


def toy(places: int, values: int, seed: int) -> tuple[dict[Member, tuple[float, ...]], dict[Member, float]]:
    """Costs that add up, and errors that nearly do."""
    draw = np.random.default_rng(seed)
    damage, size = draw.exponential(1.0, (places, values)), draw.uniform(1, 3, places)
    members = list(np.ndindex(*(values,) * places))
    errors = [float(np.exp(damage[range(places), one].sum() + draw.normal(0, 0.02))) for one in members]
    costs = {one: (float(size @ np.array(one)),) for one in members}
    return costs, dict(zip(members, errors, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_few_judged_show_the_front(seed: int) -> None:
    costs, errors = toy(4, 4, seed)
    star = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]

    def volume(members: list[Member]) -> float:
        return hypervolume([(np.log(errors[one]), *costs[one]) for one in members], (10.0, 40.0))

    judged = list(explore(costs, star, errors.__getitem__, 64))
    assert volume(judged) > 0.99 * volume(list(costs))
    every = explore(costs, star, errors.__getitem__, 1000)
    assert set(every) == set(costs)
    assert on_front(costs, every) == on_front(costs, errors)


def test_no_more_are_judged_than_asked() -> None:
    costs, errors = toy(4, 4, 0)
    assert len(explore(costs, list(costs)[:3], errors.__getitem__, 10)) == 10
    assert len(explore(costs, list(costs), errors.__getitem__, 10)) == 10


def test_what_adds_up_is_foretold() -> None:
    costs, _ = toy(3, 3, 1)
    errors = {one: float(np.exp(one[0] + 0.5 * one[1] - 0.2 * one[2])) for one in costs}
    star = [(0, 0, 0), *((i, 0, 0) for i in (1, 2)), *((0, i, 0) for i in (1, 2)), *((0, 0, i) for i in (1, 2))]
    found = foretell(list(costs), {one: errors[one] for one in star})
    assert found == pytest.approx(list(errors.values()), rel=0.02)


def test_utterances_are_spread_over_the_usable_ones() -> None:
    usable = np.array([True, False, True, True, True, True])
    assert spread(usable, 3).tolist() == [0, 3, 5]
    assert spread(usable, None).tolist() == spread(usable, 9).tolist() == [0, 2, 3, 4, 5]


# Allocations


def test_allocations_cost_what_their_runs_do(small: Callable[..., Path]) -> None:
    config = load_study(small(budgets={"size_bytes": 6000}))
    allocations = Allocations(config)
    assert [allocations.named(one) for one in allocations.star()] == ["8 8", "2 8", "4 8", "8 2"]
    for member, costs in allocations.affordable().items():
        run = config.run_of(allocations.changes(member))
        assert costs == config.budgets.costs(price(run))
        assert allocations.bit_map(member) == price(run).bit_map
        assert allocations.member(allocations.parameters(member)) == member
    over = set(np.ndindex(3, 2)) - set(allocations.affordable())
    assert over
    assert all(allocations.costs(member)["size_bytes"] > 6000 for member in over)


def test_the_widest_has_the_most_bits_of_activations_too(small: Callable[..., Path]) -> None:
    """Activations in float store no scale: the model with the most bytes has some in 4 bits."""
    layers = {
        "encoder.*": {"weight": [2, 8], "activation": [4, 8, 32]},
        "joiner.*": {"weight": 8, "granularity": ["tensor", "channel"], "activation": [4, 8]},
    }
    allocations = Allocations(load_study(small(space={"policy": {"name": "fake_qat", "layers": layers}})))
    assert allocations.named(allocations.widest) == "8 32 channel 8"


@pytest.mark.parametrize("named", [{"name": "mixed"}, {}], ids=["name", "the base's name"])
def test_allocations_have_what_the_base_says_of_the_policy(small: Callable[..., Path], named: dict[str, str]) -> None:
    policy = {"name": "mixed", "base": "native_int", "layers": {"joiner.*": {"weight": 8, "activation": 8}}}
    space = {"policy": {**named, "layers": {"encoder.*": {"weight": [4, 8], "activation": 8}}}}
    config = load_study(small(base={"policy": policy}, space=space, screening={}))
    check(config)
    allocations = Allocations(config)
    for member in [(0,), (1,)]:
        run = config.run_of(allocations.changes(member))
        assert allocations.bit_map(member) == price(run).bit_map
        assert allocations.costs(member) == config.budgets.costs(price(run))
    switchable = build_policy(allocations.switchable)
    assert switchable.bit_map(price(config.base_run).shapes) == allocations.bit_map((1,))


@pytest.mark.parametrize(
    "space",
    [
        {"policy": {"name": ["ptq", "fake_qat"], "layers": LAYERS}},
        {"policy": {"name": "mixed", "layers": LAYERS}, "finetune": {"steps": [1, 2]}},
        {"policy": {"name": "mixed", "layers": {"*": [{"weight": 2}, {"weight": 4}]}}},
        [SPACE, SPACE],
    ],
    ids=["policies", "steps", "mappings", "two templates"],
)
def test_only_widths_can_be_screened(space: Any) -> None:
    with pytest.raises(UserError, match=r"screening: it judges widths; give a `space` of one entry"):
        make_config(space=space, screening={})


# Judge


def test_scores_are_kept_for_as_long_as_they_hold(tmp_path: Path) -> None:
    def refuse() -> Any:
        raise AssertionError("there is nothing to evaluate")

    file = tmp_path / "scores.json"
    file.write_text('{"identity": "a", "scores": {"2 8": [0.25, 1.5]}}')
    score = Judge(refuse, None, file, "a").score("2 8", {})
    assert (score.wer, score.loss) == (0.25, 1.5)
    assert score.error == 0.265
    with pytest.raises(AssertionError):
        Judge(refuse, None, file, "b").score("2 8", {})
    file.write_text('{"identity": "a", "scores": {"2 8": [0.25]}}')
    with pytest.raises(UserError, match="is damaged; remove it"):
        Judge(refuse, None, file, "a").score("2 8", {})


# Studies


def test_the_screened_go_first_then_the_sampler(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, make_config(trials=4))
    first = [{f"policy/layers/{layer}/weight": width for layer in "abc"} for width in (4, 2)]
    queue.study.set_user_attr(SCREENED, first)
    work(queue, measure)
    assert [trial.params for trial in queue.trials()[:2]] == first
    trained = [trial for trial in queue.trials() if trial.user_attrs[OUTCOME] == "trained"]
    assert len(trained) == 4


def test_what_was_screened_is_trained_though_trials_were_dropped_meanwhile(tmp_path: Path) -> None:
    screened = [{f"policy/layers/{layer}/weight": width for layer in "abc"} for width in (8, 4, 3, 2)]
    for trials in (4, 2, 4):
        queue = open_queue(tmp_path, make_config(trials=trials, budgets={"size_bytes": 30}))
        queue.study.set_user_attr(SCREENED, screened)
    work(queue, measure)
    trained = [trial.params for trial in queue.trials() if trial.user_attrs[OUTCOME] == "trained"]
    assert trained == screened


@pytest.mark.parametrize("by", ["switchable", "rounding", "sensitivity"])
def test_a_study_trains_what_screening_put_first(small: Callable[..., Path], tmp_path: Path, by: str) -> None:
    file = small(screening={"by": by, "steps": 3, "evaluations": 6, "utterances": 4})
    sweep(file, root=tmp_path / "studies")
    folder = tmp_path / "studies" / "small"
    study = optuna.load_study(study_name="small", storage=f"sqlite:///{folder / 'study.db'}")
    screened = study.user_attrs[SCREENED]
    assert screened
    assert [trial.params for trial in study.trials][: len(screened)] == screened[:2]
    assert len({trial.user_attrs["size_bytes"] for trial in study.trials}) == 2
    assert (folder / "screening" / "last.ckpt").exists() == (by == "switchable")
    (scores,) = (folder / "screening").glob("scores-*.json")
    assert len(read_json(scores)["scores"]) == (4 if by == "sensitivity" else 6)
    assert screen_of(load_study(file), folder).ranked() == screened


def test_a_model_that_was_trained_for_another_plan_is_not_screened(small: Callable[..., Path], tmp_path: Path) -> None:
    def planned(steps: int) -> None:
        screening = {"steps": steps, "evaluations": 4, "utterances": 2}
        sweep(small(screening=screening), root=tmp_path / "studies", prepare_only=True)

    planned(2)
    with pytest.raises(UserError, match=r"screening/last\.ckpt is of a run with another finetune; remove"):
        planned(3)


def test_trials_may_start_from_the_switchable_weights(small: Callable[..., Path], tmp_path: Path) -> None:
    screening = {"steps": 3, "evaluations": 6, "start": "switchable"}
    sweep(small(base={"cache": str(tmp_path / "cache")}, screening=screening), root=tmp_path / "studies")
    folder = tmp_path / "studies" / "small"
    switchable = folder / "screening" / "last.ckpt"
    records = read_records(folder)
    assert [record.config["start"] for record in records] == [str(switchable)] * 2
    name = f"last-{file_hash(switchable)[:8]}"
    assert {record.baseline["id"] for record in records} == {name}
    made = (tmp_path / "cache" / "baselines").glob("*/record.json")
    (scored,) = [path.parent / "model.qst" for path in made if read_record(path).run == name]
    model, *_ = load_checkpoint(switchable)
    weight = quantizable(model)["joiner.output"].weight
    assert torch.equal(PackedModel.load(scored).tensors["joiner.output.0.float"], weight)


def test_only_a_switchable_model_can_be_started_from() -> None:
    with pytest.raises(UserError, match=r"screening.start: `by: rounding` trains no switchable model"):
        make_config(screening={"by": "rounding", "start": "switchable"})


def test_a_hopeless_candidate_is_not_trained(small: Callable[..., Path], tmp_path: Path) -> None:
    """Scores are made up: only the widest are any good, and all of the space fits."""
    config = load_study(small(screening={"by": "rounding", "hopeless": 0.5}, objectives=["wer"], trials=6))
    screen = screen_of(config, tmp_path)
    screen._errors = {(2, 1): 0.1, (1, 1): 0.12, (0, 0): 0.9, (0, 1): 0.11}
    hopeless = {}
    for member in screen._errors:
        parameters, costs = screen.allocations.parameters(member), screen.allocations.costs(member)
        hopeless[member] = screen.hopeless(parameters, costs)
    assert [member for member, reason in hopeless.items() if reason] == []
    screen._errors[1, 1] = 0.2
    parameters, costs = screen.allocations.parameters((1, 1)), screen.allocations.costs((1, 1))
    assert (
        screen.hopeless(parameters, costs)
        == "hopeless: an error of 0.2 before training; 2 8 costs no more and has 0.11"
    )
    screen._settings = replace(screen._settings, hopeless=None)
    assert screen.hopeless(parameters, costs) is None


def test_one_worker_alone_screens_on_a_machine(small: Callable[..., Path], tmp_path: Path) -> None:
    """Where others have ranked the candidates, workers ask at once what is hopeless; each would train the model."""
    config = load_study(small(screening={"by": "rounding", "hopeless": 0.5, "evaluations": 4, "utterances": 2}))
    Screen(config, tmp_path).ranked()
    screen = Screen(config, tmp_path)
    widest = screen.allocations.widest
    asked = screen.allocations.parameters(widest), screen.allocations.costs(widest)
    with locked(tmp_path / "screening" / "lock"):
        worker = threading.Thread(target=screen.hopeless, args=asked)
        worker.start()
        worker.join(3)
        assert worker.is_alive(), "its scores are there, so that it has nothing else to wait for"
    worker.join()


def test_a_sweep_goes_on_after_hopeless_candidates(
    small: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge is made up; what it condemns is recorded as such, and the study still trains as many as asked."""
    file = small(screening={"by": "rounding", "hopeless": 0.1}, trials=2, objectives=["wer"])
    monkeypatch.setattr("qstudy.sweep.screening.screen.Screen.ranked", lambda self: [])
    reasons = iter(["hopeless: as told", None, "hopeless: as told", None])
    monkeypatch.setattr("qstudy.sweep.screening.screen.Screen.hopeless", lambda self, parameters, costs: next(reasons))
    sweep(file, root=tmp_path / "studies")
    study = optuna.load_study(study_name="small", storage=f"sqlite:///{tmp_path}/studies/small/study.db")
    kinds = [trial.user_attrs[OUTCOME] for trial in study.trials if trial.user_attrs[OUTCOME] != "repeated"]
    assert kinds == ["hopeless", "trained", "hopeless", "trained"]
    assert study.trials[0].constraints["hopeless"] == 1.0


# Sensitivity


def test_sensitivity_of_a_run_and_of_a_study(small: Callable[..., Path], tmp_path: Path) -> None:
    file, out = small(), tmp_path / "found"
    sensitivity(file, utterances=4, out=out)
    rows = read_json(out / "sensitivity.json")
    assert [(row["place"], row["value"]) for row in rows] == [
        ("", ""),
        ("encoder.* weight", "2"),
        ("encoder.* weight", "4"),
        ("joiner.* weight", "2"),
    ]
    assert all(row["bytes_saved"] == rows[0]["size_bytes"] - row["size_bytes"] for row in rows)
    assert {row["loss_increase"] for row in rows[:1]} == {0.0}
    assert (out / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
    assert len((out / "sensitivity.csv").read_text().splitlines()) == 5
    (scores,) = out.glob("scores-*.json")
    before = scores.stat().st_mtime_ns
    sensitivity(file, utterances=4, out=out)  # known by now
    assert scores.stat().st_mtime_ns == before
    study = yaml.safe_load(file.read_text())
    study["base"]["training"]["steps"] += 1
    file.write_text(yaml.safe_dump(study))
    sensitivity(file, utterances=4, out=out)
    assert len([*out.glob("scores-*.json")]) == 2  # of another float model


def test_sensitivity_of_a_runs_layers(
    small: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, made = tmp_path / "run.yaml", tmp_path / "made"
    make = {"corpus": "commands", "out": str(made), "train": 12, "dev": 4, "test": 2, "processes": 1}
    data = {"train": str(made / "train.jsonl"), "dev": str(made / "dev.jsonl"), "make": make}
    run.write_text(yaml.safe_dump({**load_study(small()).base, "data": data}))  # whose corpus is not there yet
    sensitivity(run, widths=[4], utterances=4, out=tmp_path / "run")
    places = [row["place"] for row in read_json(tmp_path / "run" / "sensitivity.json")]
    assert places[:2] == ["", "encoder.lstm.0 weight"]
    assert len(places) == len(set(places)) > 4
    monkeypatch.chdir(tmp_path)
    for utterances in (1, 2):
        sensitivity(run, widths=[4], utterances=utterances)
    assert len([*tmp_path.glob("runs/sensitivity-run-*/sensitivity.csv")]) == 2  # neither replaced the other
    with pytest.raises(UserError, match="--widths"):
        sensitivity(run, widths=[1], out=tmp_path / "run")


# Pruning


def test_successive_halving_stops_the_worse_half_at_every_rung() -> None:
    study = optuna.create_study(pruner=make_pruner(Pruning("halving"), first=10))
    stopped = {}
    for wer in (0.5, 0.4, 0.6, 0.3, 0.45):
        trial = study.ask()
        for step in (10, 20, 30, 40):
            trial.report(wer, step)
            if trial.should_prune():
                stopped[wer] = step
                break
        study.tell(trial, wer)
    assert stopped == {0.6: 10, 0.45: 10}


def test_pruning_wants_evaluations(small: Callable[..., Path]) -> None:
    short = {"steps": 4, "batch_size": 8}
    file = small(base={"finetune": short}, objectives=["wer"], pruning={"name": "halving"})
    with pytest.raises(UserError, match=r"pruning: .*finetune.evaluate_every is 0"):
        load_study(file)
    scratch = {"start": "scratch", "training": short, "finetune": {**short, "evaluate_every": 2}}
    with pytest.raises(UserError, match=r"pruning: .*training.evaluate_every is 0"):
        load_study(small(base=scratch, objectives=["wer"], pruning={"name": "halving"}))
    scratch["training"] = {**short, "evaluate_every": 2}
    assert load_study(small(base=scratch, objectives=["wer"], pruning={"name": "halving"})).evaluate_every == 2
