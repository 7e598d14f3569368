"""What a plot of word error rate against a cost (packed size, or latency on an accelerator) shows."""

import math
from collections.abc import Callable
from dataclasses import dataclass

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
    title: str
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
    octaves: bool = False
    """Ticks at powers of two."""


def costs(study: Study) -> list[Cost]:
    """Size, then latency on every accelerator that runs were simulated on."""
    unit, name = (1024, "KiB") if study.runs.size_bytes.max() < MIB else (MIB, "MiB")
    title, label = "Word error rate against size", f"Packed model size ({name})"
    packed = Cost("wer_vs_size", title, label, "size_bytes", unit, study.size_budget, size, octaves=True)
    return [packed, *(_latency(study, name) for name in study.accelerators)]


def _latency(study: Study, accelerator: str) -> Cost:
    """Simulated latency on one accelerator, in ms; the first accelerator's figure has the plain file name."""
    first = accelerator == study.accelerators[0]
    return Cost(
        "wer_vs_latency" if first else f"wer_vs_latency_{slug(accelerator)}",
        f"Word error rate against latency on {accelerator}",
        f"Simulated latency on {accelerator} (ms)",
        f"latency_ms.{accelerator}",
        1.0,
        study.latency_budgets.get(accelerator),
        lambda value: f"{number(value)} ms",
    )


@dataclass(frozen=True)
class Points:
    """Everything with its place; word error rates in per cent, costs in the axis' unit."""

    cost: Cost
    study: Study
    trials: pd.DataFrame
    """The finished ones, one row per setting (`Study.settings`), with `cost`, and whether on the `front`."""
    refused: pd.DataFrame
    """Candidates over a budget: the same, without rates."""
    baseline: pd.Series | None
    """The float baseline: the same; its cost may be NaN. None if nobody knows it."""

    @property
    def front(self) -> pd.DataFrame:
        """The trials on the Pareto front, cheapest first."""
        return self.trials[self.trials.front].sort_values("cost")

    @property
    def few(self) -> bool:
        """Whether there is room for every whisker."""
        return len(self.trials) <= MANY

    @property
    def beyond(self) -> list[float]:
        """Costs of float models, which may be much larger than all others."""
        floats = self.trials.cost[self.trials.policy == "float"]
        one = self.baseline
        return list(floats) if one is None or not one.cost > 0 else [*floats, one.cost]

    @property
    def inside(self) -> list[float]:
        """Costs of all others, and the budget."""
        found = [*self.trials.cost[self.trials.policy != "float"], *self.refused.cost]
        return found if self.budget is None else [*found, self.budget]

    @property
    def budget(self) -> float | None:
        """The budget; None if it is far beyond everything."""
        limit = math.inf if self.cost.budget is None else self.cost.budget / self.cost.unit
        highest = max([*self.trials.cost, *self.refused.cost, *self.beyond], default=0.0)
        return limit if limit <= 2 * highest else None

    @property
    def rated(self) -> pd.DataFrame:
        """The trials and the baseline."""
        return self.trials if self.baseline is None else pd.concat([self.baseline.to_frame().T, self.trials])

    @property
    def x(self) -> Scale:
        """The axis of costs."""
        return cost_scale(self.inside, self.cost.octaves, self.beyond)

    @property
    def y(self) -> Scale:
        """The axis of error rates."""
        return error_scale(self.rated)


def points(study: Study, cost: Cost) -> Points:
    """Look up where the study's runs lie."""
    trials = _placed(study.settings, cost).query("cost > 0")
    trials = trials.assign(front=trials.index.isin(front(study.settings, cost.column).index))
    refused = _placed(study.unfinished[study.unfinished.over_budget], cost).query("cost > 0")
    baseline = None if study.reference is None else _placed(study.reference.to_frame().T, cost).iloc[0]
    return Points(cost, study, trials, refused, baseline)


def _placed(runs: pd.DataFrame, cost: Cost) -> pd.DataFrame:
    rates = {name: 100 * runs[name].astype(float) for name in ("wer", "low", "high")}
    return runs.assign(cost=runs[cost.column].astype(float) / cost.unit, **rates)
