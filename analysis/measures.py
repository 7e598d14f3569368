"""What runs are judged by: Pareto front, budgets, compression, hypervolume, and differences between runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.study import Study
from analysis.text import points
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
    kept = ~(runs.size_bytes > (np.inf if study.size_budget is None else study.size_budget))
    for name, limit in study.latency_budgets.items():
        kept &= ~(runs[f"latency_ms.{name}"] > limit) if f"latency_ms.{name}" in runs else True
    return kept


def best(study: Study) -> pd.Series | None:
    """The setting with the lowest word error rate on dev within the budgets; of equals the smallest."""
    settings = study.settings[study.settings.policy != "float"]
    return _least(settings[within_budget(study, settings)], ["choice", "size_bytes"])


def smallest_lossless(study: Study) -> pd.Series | None:
    """The smallest setting whose word error rate on dev lies within its float baseline's interval there, or below."""
    settings = study.settings
    return _least(
        settings[(settings.choice <= settings.float_choice_high) & (settings.size_bytes > 0)], ["size_bytes", "choice"]
    )


def _least(runs: pd.DataFrame, columns: list[str]) -> pd.Series | None:
    return None if runs.empty else runs.sort_values(columns, kind="stable").iloc[0]


def compression(runs: pd.DataFrame) -> pd.Series:
    """How many times smaller each run's model is than its float baseline, or than its parameters in float."""
    floats = runs.float_bytes.fillna((4.0 * runs.parameters).where(runs.parameters > 0))
    return floats / runs.size_bytes.where(runs.size_bytes > 0)


@dataclass(frozen=True)
class Difference:
    """Word error rate of one setting minus that of another, as fractions."""

    value: float
    low: float = np.nan
    """Lower end of its 95 % interval; NaN: nothing is known of it."""
    high: float = np.nan

    @property
    def lower(self) -> bool:
        """Whether the first is better beyond doubt."""
        return self.high < 0

    @property
    def higher(self) -> bool:
        """Whether it is worse beyond doubt."""
        return self.low > 0

    @property
    def words(self) -> tuple[str, str]:
        """In percentage points: `−0.12`, `[−0.30, 0.05]`."""
        ends = "" if np.isnan(self.low + self.high) else f"[{points(self.low)}, {points(self.high)}]"
        return points(self.value), ends


def difference(study: Study, runs: pd.DataFrame, others: pd.DataFrame) -> Difference:
    """The difference on the reported set between the mean of some runs and that of others.

    Where all records tell the errors of every utterance, the interval is a bootstrap over utterances, the same draw
    for both (Bisani and Ney 2004): what is hard for both cancels out. Else it is made of the ends of both intervals,
    which is wider than need be.
    """
    value = runs.wer.mean() - others.wer.mean()
    mine, theirs = (_errors(study, list(one.run)) for one in (runs, others))
    if mine and theirs and np.array_equal(mine[1], theirs[1]):
        return Difference(value, *_paired(mine[0] - theirs[0], mine[1]))
    return Difference(value, runs.low.mean() - others.high.mean(), runs.high.mean() - others.low.mean())


def same_seeds(runs: pd.DataFrame, others: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both with the seeds alone that they share; all runs if they share none."""
    shared = set(runs.seed) & set(others.seed)
    return (runs[runs.seed.isin(shared)], others[others.seed.isin(shared)]) if shared else (runs, others)


def _errors(study: Study, runs: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
    """(errors by utterance, a mean over the runs; words); None unless all runs tell of the same utterances."""
    found = [study.errors_of(run) for run in runs]
    words = found[0].words.to_numpy()
    if not len(words) or not all(np.array_equal(words, one.words) for one in found):
        return None
    return np.mean([one.errors for one in found], axis=0), words


def _paired(gaps: np.ndarray, words: np.ndarray, seed: int = 0) -> tuple[float, float]:
    drawn = np.random.default_rng(seed).integers(len(words), size=(DRAWS, len(words)))
    rates = gaps[drawn].sum(1) / np.maximum(words.astype(np.float64)[drawn].sum(1), 1)
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)
