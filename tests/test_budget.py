"""Budgets: named constraints, known before training, that the sampler learns from."""

from dataclasses import dataclass
from typing import Any

import optuna
import pytest

from qstudy.errors import UserError
from qstudy.sweep.budget import Budgets
from qstudy.sweep.config import Sampler
from qstudy.sweep.optuna_internals import constrain
from qstudy.sweep.samplers import make_sampler


@dataclass
class Price:
    size_bytes: int
    latency: dict[str, Any]


EDGE = Price(1000, {"edge": {"latency_ms": 2.0}, "server": {"latency_ms": 0.5}})


def test_costs_are_those_on_the_named_accelerator() -> None:
    assert Budgets(latency_ms=1.0, accelerator="server").costs(EDGE) == {"size_bytes": 1000, "latency_ms": 0.5}
    assert Budgets().costs(EDGE) == {"size_bytes": 1000, "latency_ms": 2.0}
    assert Budgets(size_bytes=5).costs(Price(1000, {})) == {"size_bytes": 1000}


def test_a_budget_on_an_accelerator_that_is_not_simulated_is_an_error() -> None:
    with pytest.raises(UserError, match=r"accelerator: 'tpu' is not among .*\(edge, server\)"):
        Budgets(latency_ms=1.0, accelerator="tpu").costs(EDGE)


def test_a_latency_that_is_not_known_meets_no_budget() -> None:
    price = Price(1000, {"edge": {"latency_ms": None}})
    assert Budgets(size_bytes=2000).costs(price) == {"size_bytes": 1000}
    with pytest.raises(UserError, match="budgets: latency_ms: no rate is set"):
        Budgets(latency_ms=1.0).costs(price)


def test_exactly_the_budget_is_within_it() -> None:
    budgets = Budgets(size_bytes=1000, latency_ms=2.0, accelerator="edge")
    costs = budgets.costs(EDGE)
    assert budgets.excess(costs) is None
    assert budgets.constraints(costs) == {"size_bytes": 0.0, "latency_ms": 0.0}


def test_what_is_over_is_named() -> None:
    budgets = Budgets(size_bytes=800, latency_ms=1.6, accelerator="edge")
    costs = budgets.costs(EDGE)
    assert budgets.excess(costs) == "over budget: size_bytes 1000 > 800, latency_ms 2 > 1.6"
    assert budgets.constraints(costs) == pytest.approx({"size_bytes": 0.25, "latency_ms": 0.25})


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf"), "1 MB", True])
def test_a_limit_is_a_number_above_0(limit: Any) -> None:
    with pytest.raises(UserError, match="size_bytes"):
        Budgets(size_bytes=limit)


def test_record_names_the_accelerator() -> None:
    assert Budgets(800, 1.6, "edge").to_record() == {
        "size_bytes": 800,
        "latency_ms": {"accelerator": "edge", "limit": 1.6},
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_tpe_learns_from_candidates_over_budget(seed: int) -> None:
    """Six layers of 2 to 8 bits whose sum must not pass 18: 4 % of the space fit."""

    def distinct_fits(sampler: Sampler) -> int:
        study = optuna.create_study()
        seen: dict[tuple[int, ...], bool] = {}
        for number in range(60):
            study.sampler = make_sampler(sampler, number)
            trial = study.ask()
            widths = tuple(trial.suggest_categorical(f"layer {layer}", [2, 3, 4, 6, 8]) for layer in range(6))
            for name, excess in Budgets(size_bytes=18).constraints({"size_bytes": sum(widths)}).items():
                constrain(trial, name, excess)
            if widths in seen:
                constrain(trial, "repeated", 1.0)
            seen.setdefault(widths, sum(widths) <= 18)
            if trial.constraints["size_bytes"] > 0 or "repeated" in trial.constraints:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, 1 / widths[0])
        return sum(seen.values())

    assert distinct_fits(Sampler("tpe", seed=seed)) >= 2 * max(distinct_fits(Sampler("random", seed=seed)), 2)


def test_every_trial_has_its_own_seed() -> None:
    def proposals(sampler: Sampler) -> list[float]:
        study = optuna.create_study()
        found = []
        for number in range(6):
            study.sampler = make_sampler(sampler, number)
            trial = study.ask()
            found.append(trial.suggest_float("x", 0, 1))
            study.tell(trial, 0.0)
        return found

    assert len(set(proposals(Sampler("random")))) == 6
    assert proposals(Sampler("random")) == proposals(Sampler("random"))
    assert proposals(Sampler("random", seed=1)) != proposals(Sampler("random"))
