"""Differences between settings: their size, and by a bootstrap how sure it is.

Drawn are utterances, or groups of them where records tell which share a speaker or recordings (`qstudy.bootstrap`).
Of few groups little can be shown: five speakers who all agree may do so by chance, once in sixteen, whatever the
utterances say. Of seeds there are always few: what they differ by is drawn as wide as Student's t has it.

A bootstrap cannot draw what it has not seen. Where two models make nearly the same errors, no draw has any that the
next utterance may bring, and it would be sure of everything: of models that do differ by the margin, it was wrong in
half of all cases at seven errors. So either model is given one error more, which falls on no utterance in particular:
draws hold as many of it as chance has it, as Agresti and Caffo's interval for two proportions (2000, "Simple and
effective confidence intervals for proportions and differences of proportions") adds a success and a failure to each.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.study import Study
from qstudy.bootstrap import by_group, count_groups, widened

DRAWS = 10_000  # of which one beyond a bound is still few enough for Holm's first level over 250 claims
KEPT = 10_000
"""Utterances up to which all draws are kept in memory (400 MB): a table asks for them over and over."""
NORMAL = 1.96  # standard deviations to either end of a 95 % interval

Rates = NDArray[np.floating]


@dataclass(frozen=True)
class Difference:
    """Word error rate of one setting minus that of another, as fractions."""

    value: float
    draws: Rates
    """The same, of as many bootstrap draws; NaN if nothing is known of its distribution."""
    other: float = np.nan
    """The rate that was subtracted."""
    other_draws: Rates | float = np.nan
    """The same draws of it."""
    drawn: int = 0
    """How many utterances, or groups of them, were drawn from; 0: unknown."""
    grouped: bool = False
    """Whether these are groups."""
    seeds: int = 1
    """Of how many, at least, either rate is the mean."""

    def beyond(self, share: float) -> "Difference":
        """What is left of it when a share of the other's rate is taken off: a margin is as uncertain as that rate."""
        return replace(self, value=self.value - share * self.other, draws=self.draws - share * self.other_draws)

    @property
    def low(self) -> float:
        """Lower end of its 95 % interval."""
        return float(np.percentile(self.draws, 2.5))

    @property
    def high(self) -> float:
        """Upper end of its 95 % interval."""
        return float(np.percentile(self.draws, 97.5))


def difference(study: Study, runs: pd.DataFrame, others: pd.DataFrame, models: tuple[int, int] = (0, 1)) -> Difference:
    """The difference on the reported set between the mean of some runs and that of others.

    `models` numbers the two: where a claim takes several differences together, each model has its own imagined error.

    Where all records tell the errors of every utterance, the distribution is a bootstrap over utterances, or groups of
    them, the same draw for both (Bisani and Ney 2004): what is hard for both cancels out; and over seeds, where there
    are several. Else it is made of the ends of both intervals, which is wider than need be.
    """
    other = others.wer.mean()
    value, seeds = runs.wer.mean() - other, min(len(runs), len(others))
    mine, theirs = ([study.errors_of(run) for run in some.run] for some in (runs, others))
    words = mine[0].words.to_numpy(np.float32)
    if not len(words) or not all(np.array_equal(words, one.words) for one in [*mine, *theirs]):
        ends = runs.low.mean() - others.high.mean(), runs.high.mean() - others.low.mean()
        return Difference(value, _between(value, *ends), other, other, seeds=seeds)
    groups = _groups([*mine, *theirs])
    number = count_groups(groups)
    errors, rivals = (np.stack([one.errors.to_numpy(np.float32) for one in some]) for some in (mine, theirs))
    if number:
        errors, rivals, words = (by_group(counts, groups) for counts in (errors, rivals, words))
    paired = list(runs.seed) == list(others.seed)
    sampled = (
        _sampled(each.mean(0), words, model, number) for each, model in zip((errors, rivals), models, strict=True)
    )
    count = max(float(words.sum()), 1.0)
    luck = _luck(errors.sum(1) / count, 1), _luck(rivals.sum(1) / count, 1 if paired else 2)
    first, second = (rate + chance for rate, chance in zip(sampled, luck, strict=True))
    return Difference(value, first - second, other, second, number or len(mine[0]), number > 0, seeds)


def _groups(runs: list[pd.DataFrame]) -> NDArray[np.integer]:
    """(N,) the group of each utterance, as those records have it that tell any; one for all if they do not agree."""
    told = [found for one in runs if (found := one.group.to_numpy()).min() >= 0]
    agreed = told and all(np.array_equal(told[0], each) for each in told)
    return told[0] if agreed else np.zeros(len(runs[0]), np.int8)


def _sampled(errors: Rates, words: Rates, model: int, groups: int) -> Rates:
    """(DRAWS,) rates of a model on other utterances, or groups of them.

    Args:
        errors: (N,) of each utterance, or group of them, a mean over seeds.
        words: (N,).
        model: its number: all draws but that of its imagined error are the same for all.
        groups: how many there are; 0: these are utterances.
    """
    count = max(float(words.sum()), 1.0)  # a set may hold silence alone
    rates = [(some @ errors).astype(float) / np.maximum(some @ words, 1) for some in _draws(len(words))]
    drawn = np.concatenate(rates) + (_imagined(model) - 1) / count
    return widened(drawn, float(errors.sum()) / count, groups) if groups else drawn


def between(study: Study, one: pd.Series, other: pd.Series) -> Difference:
    """The difference of two settings, rows of `study.settings`, over the seeds that both have."""
    return difference(study, *same_seeds(study.runs_of(one), study.runs_of(other)))


def columns(gaps: Mapping[Any, Difference]) -> pd.DataFrame:
    """Columns `gap`, `gap_low`, `gap_high` of differences by the place of their row."""
    rows = [(each.value, each.low, each.high) for each in gaps.values()]
    return pd.DataFrame(rows, list(gaps), ["gap", "gap_low", "gap_high"], dtype=float)


def same_seeds(runs: pd.DataFrame, others: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both with the seeds alone that they share; all runs if they share none."""
    shared = set(runs.seed) & set(others.seed)
    return (runs[runs.seed.isin(shared)], others[others.seed.isin(shared)]) if shared else (runs, others)


def _draws(utterances: int) -> Iterable[NDArray[np.float32]]:
    """How often each of N utterances is drawn, in parts of (DRAWS, N): of many, one part at a time."""
    return (_all_draws(utterances),) if utterances <= KEPT else _parts_of_draws(utterances, 5 * KEPT // utterances + 1)


@lru_cache(maxsize=2)
def _all_draws(utterances: int) -> NDArray[np.float32]:
    return next(iter(_parts_of_draws(utterances, DRAWS)))


def _parts_of_draws(utterances: int, rows: int) -> Iterator[NDArray[np.float32]]:
    generator = np.random.default_rng(0)
    for first in range(0, DRAWS, rows):
        counts = np.empty((min(rows, DRAWS - first), utterances), np.float32)
        for row in counts:
            row[:] = np.bincount(generator.integers(utterances, size=utterances), minlength=utterances)
        yield counts


@cache
def _imagined(model: int) -> NDArray[np.integer]:
    """(DRAWS,) how often the one error that a model is given falls on what is drawn."""
    return np.random.default_rng([DRAWS, model]).poisson(1, DRAWS)


def _luck(rates: Rates, salt: int) -> Rates:
    """How far the mean of (S,) rates lies from itself with other seeds drawn, (DRAWS,); 0 of a single one."""
    seeds = len(rates)
    if seeds == 1:
        return np.zeros(DRAWS)
    chosen = np.random.default_rng(salt).integers(seeds, size=(DRAWS, seeds))
    return widened((rates - rates.mean())[chosen].mean(1), 0.0, seeds, salt)


def _between(value: float, low: float, high: float) -> Rates:
    """Draws whose 95 % interval this is: a normal distribution, its halves as wide as they say."""
    drawn = np.random.default_rng(0).standard_normal(DRAWS)
    return value + drawn / NORMAL * np.where(drawn < 0, value - low, high - value)
