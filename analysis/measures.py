"""What runs are judged by: Pareto front, budgets, compression, hypervolume."""

import numpy as np
import pandas as pd

from analysis.study import Study, first
from analysis.verdicts import MARGIN
from qstudy.pareto import front as pareto_front


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


def smallest_near_float(study: Study) -> pd.Series | None:
    """The smallest setting whose word error rate on dev exceeds that of its float baseline by a tenth at most."""
    found = study.settings.query(f"choice <= {1 + MARGIN} * float_choice and size_bytes > 0")
    return first(found.sort_values(["size_bytes", "choice"], kind="stable"))


def compression(runs: pd.DataFrame) -> pd.Series:
    """How many times smaller each run's model is than its float baseline; than its parameters in float, where there is
    none, or it has more of them (language models, say)."""
    own = (4.0 * runs.parameters).where(runs.parameters > 0)
    floats = runs.float_bytes.mask(runs.parameters > runs.float_parameters, own).fillna(own)
    return floats / runs.size_bytes.where(runs.size_bytes > 0)
