"""How many of a sampler's candidates are within the budgets, without any training."""

from pathlib import Path

import optuna
from optuna.trial import TrialState

from qstudy.sweep.config import load_study
from qstudy.sweep.optuna_internals import constrain
from qstudy.sweep.samplers import make_sampler
from qstudy.sweep.screening.allocations import Allocations
from qstudy.sweep.space import suggest

FILE = Path("sweeps") / "digits-search.yaml"
FIRST, CANDIDATES = 20, 100


def feasible_share(seed: int) -> float:
    """Share of the candidates of the digits' search after the first 20 that are within its budgets.

    What stands in for the word error rate falls with every byte, so that the sampler is drawn to the budget's edge.
    """
    config = load_study(FILE)
    allocations, names = Allocations(config), ["size_bytes", *config.budgets.limits]
    study = optuna.create_study(directions=["minimize"] * len(config.objectives))
    found: list[bool] = []
    seen: set[tuple[int, ...]] = set()
    for number in range(CANDIDATES):
        study.sampler = make_sampler(type(config.sampler)("tpe", seed, config.sampler.startup), number)
        trial = study.ask()
        suggest(trial, config.space)
        member = allocations.member(trial.params)
        costs = allocations.costs(member)
        for name, excess in config.budgets.constraints(costs).items():
            constrain(trial, name, excess)
        found.append(config.budgets.excess(costs) is None)
        if member in seen:
            constrain(trial, "repeated", 1.0)
        if found[-1] and member not in seen:
            study.tell(trial, [1e5 / costs[names[0]], costs["size_bytes"]])
        else:
            study.tell(trial, state=TrialState.PRUNED)
        seen.add(member)
    return sum(found[FIRST:]) / len(found[FIRST:])
