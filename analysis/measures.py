"""What runs are judged by: Pareto front, budgets, compression, hypervolume, and differences between runs."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.study import Study, first
from qstudy.pareto import front as pareto_front

DRAWS = 2000


def front(runs: pd.DataFrame, cost: str = "size_bytes", error: str = "choice") -> pd.DataFrame:
    """The rows that no other row beats in cost and error rate, cheapest first; rows without a cost are left out.

    By default the rate is that on the dev set: on the reported set one would choose those that were lucky on it.
    """
    known = runs[(runs[cost] > 0) & runs[error].notna()]
    return known.iloc[pareto_front(list(zip(known[cost], known[error], strict=True)))]


def hypervolume(runs: pd.DataFrame, cost: str, most: float, worst: float, error: str = "choice") -> float:
    """Share of the rectangle from (0, 0) to (`most`, `worst`) that runs dominate: 1 would be no cost and no error."""
    kept = front(runs, cost, error)
    costs = np.append(np.minimum(kept[cost], most), most)
    return float((np.diff(costs) * np.maximum(worst - kept[error], 0)).sum() / (most * worst))


def within_budget(study: Study, runs: pd.DataFrame) -> pd.Series:
    """Whether each run keeps every budget of the study; what was not measured breaks none."""
    limits = {"size_bytes": study.size_budget} if study.size_budget is not None else {}
    limits |= {f"latency_ms.{name}": limit for name, limit in study.latency_budgets.items()}
    return ~(runs.reindex(columns=list(limits)) > pd.Series(limits, dtype=float)).any(axis=1)


def best(study: Study) -> pd.Series | None:
    """The setting with the lowest word error rate on dev within the budgets; of equals the smallest."""
    settings = study.settings[study.settings.policy != "float"]
    return first(settings[within_budget(study, settings)].sort_values(["choice", "size_bytes"], kind="stable"))


def smallest_lossless(study: Study) -> pd.Series | None:
    """The smallest setting whose word error rate on dev lies within its float baseline's interval there, or below."""
    found = study.settings.query("choice <= float_choice_high and size_bytes > 0")
    return first(found.sort_values(["size_bytes", "choice"], kind="stable"))


def compression(runs: pd.DataFrame) -> pd.Series:
    """How many times smaller each run's model is than its float baseline, or than its parameters in float."""
    floats = runs.float_bytes.fillna((4.0 * runs.parameters).where(runs.parameters > 0))
    return floats / runs.size_bytes.where(runs.size_bytes > 0)


class Difference(NamedTuple):
    """Word error rate of one setting minus that of another, as fractions, and its 95 % interval, NaN if unknown."""

    value: float
    low: float = np.nan
    high: float = np.nan


def difference(study: Study, runs: pd.DataFrame, others: pd.DataFrame) -> Difference:
    """The difference on the reported set between the mean of some runs and that of others.

    Where all records tell the errors of every utterance, the interval is a bootstrap over utterances, the same draw
    for both (Bisani and Ney 2004): what is hard for both cancels out. Else it is made of the ends of both intervals,
    which is wider than need be.
    """
    value = runs.wer.mean() - others.wer.mean()
    mine, theirs = ([study.errors_of(run) for run in some.run] for some in (runs, others))
    words = mine[0].words.to_numpy()
    if not len(words) or not all(np.array_equal(words, one.words) for one in [*mine, *theirs]):
        return Difference(value, runs.low.mean() - others.high.mean(), runs.high.mean() - others.low.mean())
    gaps = np.mean([one.errors for one in mine], axis=0) - np.mean([one.errors for one in theirs], axis=0)
    drawn = np.random.default_rng(0).integers(len(words), size=(DRAWS, len(words)))
    rates = gaps[drawn].sum(1) / np.maximum(words.astype(np.float64)[drawn].sum(1), 1)
    return Difference(value, *map(float, np.percentile(rates, [2.5, 97.5])))


def same_seeds(runs: pd.DataFrame, others: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both with the seeds alone that they share; all runs if they share none."""
    shared = set(runs.seed) & set(others.seed)
    return (runs[runs.seed.isin(shared)], others[others.seed.isin(shared)]) if shared else (runs, others)
