"""Differences between settings: their size, and by a bootstrap how sure it is."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.study import Study

DRAWS = 5000
NORMAL = 1.96  # standard deviations to either end of a 95 % interval

Rates = NDArray[np.floating]


@dataclass(frozen=True)
class Difference:
    """Word error rate of one setting minus that of another, as fractions."""

    value: float
    draws: Rates
    """The same, of as many bootstrap draws; NaN if nothing is known of its distribution."""
    utterances: int = 0
    """That it was measured on; 0: unknown."""

    @property
    def low(self) -> float:
        """Lower end of its 95 % interval."""
        return float(np.percentile(self.draws, 2.5))

    @property
    def high(self) -> float:
        """Upper end of its 95 % interval."""
        return float(np.percentile(self.draws, 97.5))


def difference(study: Study, runs: pd.DataFrame, others: pd.DataFrame) -> Difference:
    """The difference on the reported set between the mean of some runs and that of others.

    Where all records tell the errors of every utterance, the distribution is a bootstrap over utterances, the same draw
    for both (Bisani and Ney 2004): what is hard for both cancels out; and over seeds, where there are several. Else it
    is made of the ends of both intervals, which is wider than need be.
    """
    value = runs.wer.mean() - others.wer.mean()
    mine, theirs = ([study.errors_of(run) for run in some.run] for some in (runs, others))
    words = mine[0].words.to_numpy()
    if not len(words) or not all(np.array_equal(words, one.words) for one in [*mine, *theirs]):
        ends = runs.low.mean() - others.high.mean(), runs.high.mean() - others.low.mean()
        return Difference(value, _between(value, *ends))
    errors, rivals = (np.stack([one.errors.to_numpy(np.float32) for one in some]) for some in (mine, theirs))
    weights = _draws(len(words))
    total = np.maximum(weights @ words.astype(np.float32), 1)
    if list(runs.seed) == list(others.seed):
        drawn = _over_seeds((errors - rivals) @ weights.T, 1)
    else:
        drawn = _over_seeds(errors @ weights.T, 1) - _over_seeds(rivals @ weights.T, 2)
    return Difference(value, drawn / total, len(words))


def same_seeds(runs: pd.DataFrame, others: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both with the seeds alone that they share; all runs if they share none."""
    shared = set(runs.seed) & set(others.seed)
    return (runs[runs.seed.isin(shared)], others[others.seed.isin(shared)]) if shared else (runs, others)


@cache
def _draws(utterances: int) -> NDArray[np.float32]:
    """How often each utterance is drawn, (DRAWS, N)."""
    generator = np.random.default_rng(0)
    counts = np.empty((DRAWS, utterances), np.float32)
    for row in counts:
        row[:] = np.bincount(generator.integers(utterances, size=utterances), minlength=utterances)
    return counts


def _over_seeds(sums: Rates, salt: int) -> Rates:
    """The mean over seeds of (S, DRAWS) sums, each draw with seeds of its own."""
    seeds, draws = sums.shape
    chosen = np.random.default_rng(salt).integers(seeds, size=(seeds, draws))
    return np.take_along_axis(sums, chosen, 0).mean(0)


def _between(value: float, low: float, high: float) -> Rates:
    """Draws whose 95 % interval this is: a normal distribution, its halves as wide as they say."""
    drawn = np.random.default_rng(0).standard_normal(DRAWS)
    return value + drawn / NORMAL * np.where(drawn < 0, value - low, high - value)
