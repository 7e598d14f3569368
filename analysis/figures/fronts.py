"""The Pareto fronts of several studies in one picture: word error rate against a cost that all of them have."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.axes import cost_scale, error_scale, set_axis
from analysis.figures.points import Cost, costs, in_percent
from analysis.figures.style import INK, MARKS, Mark, Picture, framed, handle
from analysis.measures import front, hypervolume
from analysis.study import Study
from analysis.text import listed, percent, slug

LOOKS = tuple(mark for name, mark in MARKS.items() if name != "float")
"""Of studies, in their order."""

Named = Sequence[tuple[str, Study]]
"""Studies with their short names."""


class Shown(NamedTuple):
    """What is drawn of one study; rates in per cent, costs in the axis' unit."""

    name: str
    split: str
    """The set that rates are of, with its counts."""
    trials: pd.DataFrame
    """A row per setting, with `cost`, and whether on the `front`, which was chosen on the dev set."""
    baseline: pd.DataFrame


def fronts(studies: Named) -> Iterator[Picture]:
    """Draw the fronts over every cost that two studies or more have."""
    known: dict[str, list[Cost]] = {}
    taken = set[str]()  # what is the first accelerator of a study may be the second of another
    for one in (cost for _, study in studies for cost in costs(study)):
        known.setdefault(one.column, []).append(one)
    for found in known.values():
        cost = max(found, key=lambda one: one.unit)
        shown = [_shown(name, study, cost) for name, study in studies if cost.column in study.settings]
        shown = [one for one in shown if len(one.trials)]
        if len(shown) > 1:
            title = f"Pareto fronts of all studies over {cost.noun}"
            name = f"fronts_{slug(cost.column) if cost.name in taken else cost.name}"
            taken.add(cost.name)
            yield Picture(name, title, _caption(shown, cost), _figure(shown, cost))


def _shown(name: str, study: Study, cost: Cost) -> Shown:
    best = front(study.settings, cost.column).index
    trials = study.settings.assign(front=study.settings.index.isin(best))
    placed = (in_percent(runs).assign(cost=runs[cost.column] / cost.unit) for runs in (trials, study.references))
    trials, baseline = (runs[runs.cost > 0] for runs in placed)
    return Shown(name, study.described_split, trials, baseline)


def _figure(shown: Sequence[Shown], cost: Cost) -> Figure:
    looks = [LOOKS[place % len(LOOKS)] for place in range(len(shown))]
    handles = [handle(one.name, mark, line="-") for one, mark in zip(shown, looks, strict=True)]
    figure = framed(3.9, [*handles, handle("float baseline", Mark(INK, "*"), filled=False)])
    axes = figure.subplots()
    drawn = pd.concat([*(one.trials for one in shown), *(one.baseline for one in shown)])
    floats = drawn.policy == "float"
    set_axis(axes, "x", cost_scale(list(drawn.cost[~floats]), list(drawn.cost[floats])), cost.axis)
    ends = {name: drawn[name].where(drawn.front.eq(True)) for name in ("low", "high")}  # baselines have no whiskers
    set_axis(axes, "y", error_scale(drawn.assign(**ends)), "Word error rate (%)")
    for one, mark in zip(shown, looks, strict=True):
        _draw(axes, one, mark)
    return figure


def _draw(axes: Axes, shown: Shown, mark: Mark) -> None:
    """The front as a staircase, which is what is attainable at a cost; dominated trials pale; a star at its float."""
    most, least = axes.get_xlim()[1], axes.get_ylim()[0]
    trials, baseline = (runs.assign(cost=runs.cost.clip(upper=most)) for runs in (shown.trials, shown.baseline))
    best, rest = trials[trials.front].sort_values("cost"), trials[~trials.front]
    corners = np.column_stack([np.repeat(best.cost, 2)[1:], np.repeat(best.wer, 2)[:-1]])
    look: dict[str, Any] = {"color": mark.color, "marker": mark.marker, "linestyle": "", "clip_on": False}
    axes.plot(*corners.T, color=mark.color, linewidth=1.3, zorder=4)
    axes.vlines(best.cost, best.low.clip(lower=least), best.high, mark.color, lw=0.9, alpha=0.6, zorder=3)
    axes.plot(rest.cost, rest.wer, **{**look, "ms": 0.5 * mark.size, "alpha": 0.35, "zorder": 2})
    axes.plot(best.cost, best.wer, **{**look, "ms": mark.size, "zorder": 6})
    axes.plot(baseline.cost, baseline.wer, **{**look, "marker": "*", "ms": 11, "mfc": "none", "zorder": 5})


def _caption(shown: Sequence[Shown], cost: Cost) -> str:
    same = len({one.split for one in shown}) == 1
    where = shown[0].split if same else listed([f"{one.split} of {one.name}" for one in shown])
    seeds = max(one.trials.n.max() for one in shown)
    parts = [
        f"Word error rate on {where}. Large: the Pareto front of each study, chosen by its rates on dev where it has "
        "any, with 95 % intervals; small: dominated; hollow stars: float baselines, whose cost may lie beyond the end.",
        "" if same else "The sets differ: compare shapes, not heights.",
        f"Points are means over up to {seeds:.0f} seeds." if seeds > 1 else "",
        _dominated(shown, cost),
    ]
    return " ".join(filter(None, parts))


def _dominated(shown: Sequence[Shown], cost: Cost) -> str:
    """How much of one rectangle the fronts dominate: the same for all, up to the largest cost and rate of any."""
    trials = pd.concat([one.trials[one.trials.policy != "float"] for one in shown])
    if trials.empty or not trials.wer.max() > 0:
        return ""
    most, worst = trials.cost.max(), trials.wer.max()
    shares = [
        f"{one.name} {hypervolume(one.trials[one.trials.front], 'cost', most, worst, 'wer'):.3f}" for one in shown
    ]
    corner = f"{cost.words(most * cost.unit)} and {percent(worst / 100)} %"
    return f"Share of the rectangle up to {corner} that is dominated (hypervolume): {listed(shares)}."
