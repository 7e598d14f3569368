"""Word error rate against a cost (size or latency): Pareto front, dominated trials, budget, float baseline."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.axes import draw_baseline, set_axis
from analysis.figures.interactive import plot
from analysis.figures.labels import along, write_labels
from analysis.figures.points import Points, costs, points
from analysis.figures.style import INK, MARKS, MUTED, PAPER, SHADE, Mark, Picture, framed, handle, marks
from analysis.study import Study
from analysis.text import counted, listed

STAR = MARKS["float"]


def tradeoff(study: Study) -> Iterator[Picture]:
    """Draw word error rate against every cost that finished runs have."""
    for place, cost in enumerate(costs(study)):
        shown = points(study, cost)
        title = f"Word error rate against {cost.noun}"
        yield Picture(cost.name, title, _caption(shown), _figure(shown), plot(shown, place))


def _figure(shown: Points) -> Figure:
    looks = marks(shown.trials.method)
    figure = framed(3.7, _handles(shown, looks))
    axes = figure.subplots()
    set_axis(axes, "x", shown.x, shown.cost.axis)
    set_axis(axes, "y", shown.y, f"Word error rate on {shown.study.split} (%)")
    _budget(axes, shown)
    _refused(axes, shown)
    _baseline(axes, shown)
    _trials(axes, shown, looks)
    _front(axes, shown)
    return figure


def _handles(shown: Points, looks: dict[str, Mark]) -> list[Line2D]:
    """Float controls are hollow: trained like the others, but in float."""
    return [
        *[handle("float baseline", STAR)] * bool(len(shown.baseline)),
        *(handle("float control" if name == "float" else name, mark, name != "float") for name, mark in looks.items()),
        handle("hollow: dominated", Mark(MUTED, "o"), filled=False),
        *[handle("over budget, not trained", Mark(MUTED, "x"))] * bool(len(shown.refused)),
    ]


def _budget(axes: Axes, shown: Points) -> None:
    """A dashed line, and shade beyond it."""
    for x in shown.budget:
        axes.axvspan(x, shown.x.limits[1], facecolor=SHADE, linewidth=0, zorder=0)
        axes.axvline(x, color=INK, linewidth=1, linestyle="--", zorder=2)
        words = f"budget {shown.cost.words(x * shown.cost.unit)}"
        axes.annotate(words, (x, 0.99), (4, 0), ("data", "axes fraction"), "offset points", rotation=90, va="top")


def _refused(axes: Axes, shown: Points) -> None:
    """Crosses on the axis: candidates whose cost is known but whose error rate is not."""
    x, across = shown.refused.cost, axes.get_xaxis_transform()
    axes.plot(x, [0.024] * len(x), "x", color=MUTED, ms=4.5, transform=across, rasterized=not shown.few)


def _baseline(axes: Axes, shown: Points) -> None:
    """A line, and a star at its cost, which is told where it lies beyond the axis."""
    draw_baseline(axes, shown.baseline)
    for one in shown.baseline.itertuples():
        axes.plot(one.cost, one.wer, STAR.marker, color=INK, ms=11, mec=PAPER, mew=0.6, zorder=8, clip_on=False)
        if one.cost == shown.x.limits[1]:
            far = shown.cost.words(one.far)
            axes.annotate(f"{far} →", (one.cost, one.wer), (-3, 5), textcoords="offset points", ha="right")


def _trials(axes: Axes, shown: Points, looks: dict[str, Mark]) -> None:
    """Each policy's trials, those on the front filled and above all others; and their whiskers."""
    for (best, method), trials in shown.trials.groupby(["front", "method"], sort=False):
        mark = looks[str(method)]
        look: dict[str, Any] = {"facecolors": mark.color, "zorder": 7} if best else {"facecolors": PAPER, "zorder": 6}
        look |= {"edgecolors": mark.color, "linewidths": 1.1, "rasterized": not shown.few, "clip_on": False}
        axes.scatter(trials.cost, trials.wer, mark.size**2, marker=mark.marker, **look)
        if best or shown.few:
            axes.vlines(trials.cost, trials.low, trials.high, mark.color, lw=0.9, alpha=1 if best else 0.45, zorder=5)


def _front(axes: Axes, shown: Points) -> None:
    """A staircase, which is what is attainable at a cost, and how many bits each of its trials has."""
    front, drawn = shown.front, shown.trials if shown.few else shown.front
    corners = np.column_stack([np.repeat(front.cost, 2)[1:], np.repeat(front.wer, 2)[:-1]])
    axes.plot(*corners.T, color=INK, linewidth=1.1, zorder=4)
    axes.figure.figure.draw_without_rendering()  # lays out: only then is it known where labels come to lie
    starts = np.vstack([corners[:-1], *[drawn[["cost", "wer"]]] * 2])
    ends = np.vstack([corners[1:], drawn[["cost", "low"]], drawn[["cost", "high"]]])
    spots = np.vstack([axes.transData.transform(shown.trials[["cost", "wer"]]), along(axes, starts, ends)])
    write_labels(axes, zip(front.cost, front.wer, front.label, strict=True), spots)


def _caption(shown: Points) -> str:
    cost, baseline, study = shown.cost, shown.baseline, shown.study
    where = "" if study.chosen_on == study.split else f" of the rates on {study.chosen_on}"
    parts = [
        f"{study.described_runs}; word error rate on {study.described_split}. "
        f"Filled: on the Pareto front{where} (the line joins them); hollow: dominated. Labels (of files and in print): "
        "bits per weight (W, a mean where layers differ) and per activation (A)."
    ]
    if (seeds := shown.trials.n.max()) > 1:
        parts.append(f"Points (of files and in print) are means over up to {seeds:.0f} seeds.")
    if shown.trials.low.notna().any():
        few = " of runs on the front" * (not shown.few)
        parts.append(f"Whiskers: 95 % bootstrap interval over {shown.study.resampled}{few}.")
    if cost.budget is not None:
        where = "Dashed" if shown.budget else "Far to the right"
        parts.append(f"{where}: the budget of {cost.words(cost.budget)}.")
    if len(shown.refused):
        parts.append(f"Crosses: {counted(len(shown.refused), 'candidate')} over a budget, pruned before training.")
    if len(baseline):
        parts.append(_of_baseline(baseline))
    if pd.concat([shown.trials.cost, baseline.cost]).max() == shown.x.limits[1]:
        parts.append("At the right end: float models, whose cost lies beyond.")
    return " ".join(parts)


def _of_baseline(baseline: pd.DataFrame) -> str:
    """What marks the float baseline, or all of several."""
    starred, known = bool((baseline.cost > 0).any()), bool((baseline.low >= 0).any())
    signs = listed(["star"] * starred + ["dotted line"] + ["band"] * known).capitalize()
    one = len(baseline) == 1
    return f"{signs}: {'the' if one else 'each'} float baseline{' and its interval' * known}."
