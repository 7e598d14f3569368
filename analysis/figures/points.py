"""What a plot of word error rate against a cost (packed size, or latency on an accelerator) shows."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.figures.axes import Scale, cost_scale, error_scale
from analysis.measures import front
from analysis.study import Study
from analysis.text import MIB, number, size, slug

MANY = 200  # trials: of more, only those on the front have whiskers, and points are pixels in SVG and PDF files, too


@dataclass(frozen=True)
class Cost:
    """One horizontal axis."""

    name: str
    """File name of its figure."""
    noun: str
    axis: str
    """Axis label with its unit."""
    column: str
    """Of the runs."""
    unit: float
    """Divides raw values."""
    budget: float | None
    """Raw value."""
    words: Callable[[float], str]
    """A raw value with its unit, for readers."""


def costs(study: Study) -> list[Cost]:
    """Size, and latency on every accelerator (the first has the plain file name): those that finished runs have."""
    unit, name = (1024, "KiB") if study.runs.size_bytes.max() < MIB else (MIB, "MiB")
    label = f"Packed model size ({name})"
    found = [Cost("wer_vs_size", "size", label, "size_bytes", unit, study.size_budget, size)]
    for name in study.accelerators:
        file = f"wer_vs_latency_{slug(name)}" if len(found) > 1 else "wer_vs_latency"
        noun, limit = f"latency on {name}", study.latency_budgets.get(name)
        found.append(Cost(file, noun, f"Simulated {noun} (ms)", f"latency_ms.{name}", 1, limit, _milliseconds))
    return [cost for cost in found if (study.finished[cost.column] > 0).any()]


def _milliseconds(value: float) -> str:
    return f"{number(value)} ms"


@dataclass(frozen=True)
class Points:
    """Everything with its place; word error rates in per cent, costs in the axis' unit; at an axis' end if beyond."""

    study: Study
    cost: Cost
    trials: pd.DataFrame
    """The finished ones, one row per setting (`Study.settings`), with `cost`, and whether on the `front`."""
    refused: pd.DataFrame
    """Candidates over a budget: the same, without rates."""
    baseline: pd.DataFrame
    """The float baseline: one row, whose cost may be NaN, or none."""
    budget: list[float]
    """The budget, if there is one and it is not far beyond everything."""
    x: Scale
    y: Scale

    @property
    def front(self) -> pd.DataFrame:
        """The trials on the Pareto front, cheapest first."""
        return self.trials[self.trials.front].sort_values("cost")

    @property
    def few(self) -> bool:
        """Whether there is room for every whisker."""
        return len(self.trials) <= MANY


def points(study: Study, cost: Cost) -> Points:
    """Look up where the study's runs lie."""
    best = front(study.settings, cost.column).index
    trials = _placed(study.settings, cost).assign(front=study.settings.index.isin(best)).dropna(subset="cost")
    refused = _placed(study.unfinished[study.unfinished.over_budget], cost).dropna(subset="cost")
    baseline = _placed(study.references, cost)
    rated = pd.concat([baseline, trials])
    quantized = [*trials.cost[trials.policy != "float"], *refused.cost]
    budget = [limit for limit in [(cost.budget or np.inf) / cost.unit] if limit <= 2 * max(quantized, default=0.0)]
    x = cost_scale([*quantized, *budget], list(rated.cost[rated.policy == "float"].dropna()))
    y = error_scale(rated)
    trials, refused, baseline = (
        runs.assign(cost=runs.cost.clip(upper=x.limits[1]), low=runs.low.clip(lower=y.limits[0]))
        for runs in (trials, refused, baseline)
    )
    return Points(study, cost, trials, refused, baseline, budget, x, y)


def in_percent(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with their rates and intervals in per cent."""
    return runs.assign(**{name: 100 * runs[name] for name in ("wer", "low", "high")})


def _placed(runs: pd.DataFrame, cost: Cost) -> pd.DataFrame:
    """With `cost` in the axis' unit, to be clipped, and `far`, the raw value."""
    raw = runs[cost.column].where(runs[cost.column] > 0)
    return in_percent(runs).assign(cost=raw / cost.unit, far=raw)
