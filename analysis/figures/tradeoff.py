"""Word error rate against a cost (size or latency): Pareto front, dominated trials, budget, float baseline."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.axes import set_x, set_y
from analysis.figures.interactive import plot
from analysis.figures.labels import Labels
from analysis.figures.legend import BASELINE, handle, legend
from analysis.figures.points import Points, costs, points
from analysis.figures.style import INK, MARKS, MUTED, PAPER, SETTINGS, SHADE, Mark, Picture, marks
from analysis.study import Study
from analysis.text import counted, listed

WIDTH, HEIGHT = 6.6, 4.2  # inches: a text column, or the whole width of a page with two
STAR = MARKS["float"]


def tradeoff(study: Study) -> Iterator[Picture]:
    """Draw word error rate against every cost that finished runs have."""
    for place, cost in enumerate(costs(study)):
        shown = points(study, cost)
        if len(shown.trials) or (shown.baseline is not None and shown.baseline.cost > 0):
            with style.context(SETTINGS):
                figure = _Plot(shown).draw()
            yield Picture(cost.name, cost.title, _caption(shown), figure, plot(shown, place))


class _Plot:
    """One figure, drawn from back to front."""

    def __init__(self, shown: Points) -> None:
        self.shown, self.trials, self.front = shown, shown.trials, shown.front
        self.marks = marks(self.trials.method)
        self.figure = Figure(figsize=(WIDTH, HEIGHT))
        top = legend(self.figure, self._handles(), handletextpad=0.35, handlelength=1.2)
        self.axes = self.figure.add_axes((0.085, 0.112, 0.895, top - 0.13))
        self.edge = shown.x.edge
        set_x(self.axes, shown.x)
        set_y(self.axes, shown.y)
        self.axes.set_xlabel(shown.cost.axis)
        self.axes.set_ylabel(f"Word error rate on {shown.study.split} (%)")

    def draw(self) -> Figure:
        """Draw everything."""
        labels = Labels(self.axes)
        self._budget(labels)
        self._reference(labels)
        self._refused(labels)
        self._staircase(labels)
        self._whiskers(labels)
        for method, trials in self.trials.groupby("method", sort=False):
            self._points(trials, self.marks[str(method)], labels)
        labels.place(list(zip(self._x(self.front.cost), self.front.wer, strict=True)), list(self.front.label))
        return self.figure

    def _x(self, costs: pd.Series) -> pd.Series:
        """Where costs lie on the axis, which may be broken before the float models."""
        return costs.clip(upper=self.edge)

    def _handles(self) -> list[Line2D]:
        handles = []
        if self.shown.baseline is not None and self.shown.baseline.cost > 0:
            handles.append(handle("float baseline", STAR))
        elif self.shown.baseline is not None:
            handles.append(Line2D([], [], label="float baseline", **BASELINE))
        for name, mark in self.marks.items():
            control = name == "float"  # trained like the others, but in float
            handles.append(handle("float control" if control else name, mark, filled=not control))
        handles.append(handle("hollow: dominated", Mark(MUTED, "o", 5.5), filled=False))
        if len(self.shown.refused):
            handles.append(handle("over budget, not trained", Mark(MUTED, "x", 4.5)))
        return handles

    def _budget(self, labels: Labels) -> None:
        """A dashed line and shade beyond it; a word at the edge if everything is far below the budget."""
        cost = self.shown.cost
        if cost.budget is None:
            return
        words = f"budget {cost.words(cost.budget)}"
        if self.shown.budget is None:
            text = self.axes.text(1, 1, f"{words} →", transform=self.axes.transAxes, ha="right", va="top", fontsize=8)
            labels.block_text(text)
            return
        x, high, ends = self.shown.budget, self.axes.get_xlim()[1], self.axes.get_ylim()
        self.axes.axvspan(x, high, facecolor=SHADE, linewidth=0, zorder=0)
        self.axes.axvline(x, color=INK, linewidth=1, linestyle=(0, (5, 3)), zorder=2)
        room = np.ptp(labels.pixels([(x, 1), (high, 1)])[:, 0]) > 20 * labels.scale
        look: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "rotation": 90}
        look |= {"ha": "left", "va": "top", "fontsize": 8} if room else {"ha": "right", "va": "top", "fontsize": 8}
        text = self.axes.annotate(words, (x, 1), (4 if room else -4, -3), **look)
        labels.block_text(text)
        labels.block([(x, ends[0])], [(x, ends[1])])

    def _reference(self, labels: Labels) -> None:
        one = self.shown.baseline
        if one is None:
            return
        self.axes.axhspan(one.low, one.high, facecolor=MUTED, alpha=0.13, linewidth=0, zorder=1)
        self.axes.axhline(one.wer, zorder=2, **BASELINE)
        if one.cost > 0:
            x = min(one.cost, self.edge)
            self.axes.plot([x], [one.wer], STAR.marker, color=STAR.color, ms=11, mec=PAPER, mew=0.6, zorder=8)
            labels.block([(x, one.wer)], radius=7)

    def _refused(self, labels: Labels) -> None:
        """Crosses on the axis: candidates whose cost is known but whose error rate is not."""
        across, places = self.axes.get_xaxis_transform(), self._x(self.shown.refused.cost)
        (crosses,) = self.axes.plot(places, [0.024] * len(places), "x", transform=across, color=MUTED, ms=4.5, zorder=3)
        crosses.set_rasterized(not self.shown.few)
        labels.block([(x, self.axes.get_ylim()[0]) for x in places], radius=12)

    def _staircase(self, labels: Labels) -> None:
        """From one trial of the front to the next: what is attainable at a cost."""
        x, y = np.repeat(self._x(self.front.cost), 2)[1:], np.repeat(self.front.wer, 2)[:-1]
        self.axes.plot(x, y, color=INK, linewidth=1.1, zorder=4, solid_joinstyle="miter")
        corners = np.column_stack([x, y])
        labels.block(corners[:-1], corners[1:])

    def _whiskers(self, labels: Labels) -> None:
        drawn = (self.trials if self.shown.few else self.front).dropna(subset=["low", "high"])
        x, low = self._x(drawn.cost), drawn.low.clip(lower=self.axes.get_ylim()[0])
        starts, ends = np.column_stack([x, low]), np.column_stack([x, drawn.high])
        colors = [
            to_rgba(self.marks[name].color, 1 if best else 0.45)
            for name, best in zip(drawn.method, drawn.front, strict=True)
        ]
        self.axes.add_collection(
            LineCollection(list(np.stack([starts, ends], axis=1)), colors=colors, linewidths=0.9, zorder=5)
        )
        labels.block(starts, ends)

    def _points(self, trials: pd.DataFrame, mark: Mark, labels: Labels) -> None:
        look: dict[str, Any] = {"s": mark.size**2, "marker": mark.marker, "linewidths": 1.1, "edgecolors": mark.color}
        for best, some in trials.groupby("front"):
            look |= {"facecolors": mark.color, "zorder": 7} if best else {"facecolors": PAPER, "zorder": 6}
            self.axes.scatter(self._x(some.cost), some.wer, rasterized=not self.shown.few, **look)
        labels.block(np.column_stack([self._x(trials.cost), trials.wer]), radius=mark.size / 2 + 1)


def _caption(shown: Points) -> str:
    cost, baseline, study = shown.cost, shown.baseline, shown.study
    where = "" if study.chosen_on == study.split else f" of the rates on {study.chosen_on}"
    parts = [
        f"{counted(len(study.trials), 'trained trial')}; word error rate on {study.described_split}. "
        f"Filled: on the Pareto front{where} (the line joins them); hollow: dominated. Labels (of files and in print): "
        "bits per weight (W, a mean where layers differ) and per activation (A)."
    ]
    if (seeds := shown.trials.n.max()) > 1:
        parts.append(f"Points (of files and in print) are means over up to {seeds:.0f} seeds.")
    if shown.trials.low.notna().any():
        few = " of runs on the front" * (not shown.few)
        parts.append(f"Whiskers: 95 % bootstrap interval over utterances{few}.")
    if cost.budget is not None:
        where = "Far to the right" if shown.budget is None else "Dashed"
        parts.append(f"{where}: the budget of {cost.words(cost.budget)}.")
    if len(shown.refused):
        parts.append(f"Crosses: {counted(len(shown.refused), 'candidate')} over a budget, pruned before training.")
    if baseline is not None:
        known = baseline.notna()
        signs = ["star"] * bool(known.cost) + ["dotted line"] + ["band"] * bool(known.low)
        parts.append(f"{listed(signs).capitalize()}: the float baseline{' and its interval' * bool(known.low)}.")
    return " ".join(parts)
