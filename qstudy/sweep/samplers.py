"""The parts of Optuna that propose candidates and stop hopeless ones."""

import warnings
from collections.abc import Mapping
from typing import Any

import optuna

from qstudy.sweep.config import Pruning, Sampler


def make_sampler(settings: Sampler, trial: int) -> optuna.samplers.BaseSampler:
    """The sampler for one trial, seeded with the study's seed and the trial's number.

    A fresh seed per trial makes the proposals independent of how often the study was interrupted and of how many
    workers share it: one seed for all of them would propose the same candidates again.
    """
    seed = (settings.seed * 1_000_003 + trial) % 2**32  # what NumPy takes
    if settings.name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if settings.name == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=settings.population, seed=seed)
    # `group`: templates need not share parameters, and the trials of a grid have none at all
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(n_startup_trials=settings.startup, multivariate=True, group=True, seed=seed)


def fixed_sampler(parameters: Mapping[str, Any]) -> optuna.samplers.BaseSampler:
    """What proposes nothing but these: for a trial of the grid, which then shows its parameters as any other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.PartialFixedSampler(dict(parameters), optuna.samplers.RandomSampler())


def make_pruner(settings: Pruning | None, first: int) -> optuna.pruners.BasePruner:
    """The rule by which trials are stopped early; `first`: the step of their first evaluation."""
    if settings is None:
        return optuna.pruners.NopPruner()
    if settings.name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(settings.warmup or first, settings.factor)
    return optuna.pruners.MedianPruner(n_startup_trials=settings.startup, n_warmup_steps=settings.warmup)
