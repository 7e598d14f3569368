"""After how many evaluations the exact front of a small space is found, which was enumerated by rounding."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from tqdm import tqdm

from benchmarks.search.studies import FILE
from qstudy.pareto import Point
from qstudy.sweep.budget import Budgets
from qstudy.sweep.config import Sampler, Screening, StudyConfig, load_study
from qstudy.sweep.samplers import make_sampler
from qstudy.sweep.screening.allocations import Allocations, Member
from qstudy.sweep.screening.exploration import explore, on_front
from qstudy.sweep.screening.screen import judge_of
from qstudy.sweep.space import suggest

UTTERANCES = 60
LAYERS: dict[str, Any] = {
    "*": {"activation": 8},
    **{f"encoder.lstm.{index}": {"weight": [2, 3, 4]} for index in range(3)},
    "predictor.*": {"weight": [2, 4]},
    "joiner.*": {"weight": [2, 4]},
}
PATIENCE = 20
"""Candidates that a sampler may propose for every member that there is."""


def small_study() -> StudyConfig:
    """The study's space with fewer values: 108 members, no budget."""
    space = {"policy": {"name": "mixed", "layers": LAYERS}}
    return replace(load_study(FILE), study="search-exact", space=(space,), budgets=Budgets())


def exact_front(folder: Path, seeds: int) -> dict[str, Any]:
    """Enumerate the space, then count what each way to search it takes until it has met the whole front; JSON-able.

    A sampler's repeated candidates are not counted. None: it was not met within `PATIENCE` candidates per member.
    """
    config = small_study()
    allocations = Allocations(config)
    judge = judge_of(config, Screening(by="rounding", utterances=UTTERANCES), allocations, folder)
    costs: dict[Member, Point] = {m: (cost["size_bytes"],) for m, cost in allocations.affordable().items()}
    errors = {m: judge.score(allocations.named(m), allocations.bit_map(m)).error for m in tqdm(costs, "rounding")}
    best = set(on_front(costs, errors))
    own = list(explore(costs, list(allocations.star()), errors.__getitem__, len(costs)))
    found: dict[str, list[int | None]] = {"screening": [_until(own, best)]}
    for name, sampler in (("TPE", Sampler("tpe", startup=10)), ("NSGA-II", Sampler("nsga2", population=12))):
        seeded = [replace(sampler, seed=seed) for seed in range(seeds)]
        found[name] = [_until(_sampled(config, allocations, one, costs, errors, best), best) for one in seeded]
    shuffled = [np.random.default_rng(seed).permutation(len(costs)) for seed in range(100)]
    members = list(costs)
    drawn = [_until([members[index] for index in order], best) for order in shuffled]
    found["random, median"] = [int(np.median([each for each in drawn if each is not None]))]
    places = sorted(own.index(member) + 1 for member in best)
    return {"members": len(costs), "front": len(best), "evaluations": found, "screening_met": places}


def _until(order: list[Member], best: set[Member]) -> int | None:
    """Members judged, in this order, until all of the best are among them."""
    places = [order.index(member) for member in best if member in order]
    return max(places) + 1 if len(places) == len(best) else None


def _sampled(
    config: StudyConfig,
    allocations: Allocations,
    sampler: Sampler,
    costs: Mapping[Member, Point],
    errors: Mapping[Member, float],
    best: set[Member],
) -> list[Member]:
    """The members that a sampler proposes, each once, until it has proposed the best or its patience ends."""
    study = optuna.create_study(directions=["minimize", "minimize"])
    seen: dict[Member, None] = {}
    for number in range(PATIENCE * len(costs)):
        study.sampler = make_sampler(sampler, number)
        trial = study.ask()
        suggest(trial, config.space)
        member = allocations.member(trial.params)
        study.tell(trial, (errors[member], *costs[member]))
        seen[member] = None
        if best <= set(seen):
            break
    return list(seen)
