"""Word error rate against a cost (size or latency): Pareto front, dominated trials, budget, float baseline."""

from itertools import pairwise

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.axes import cost_axis, error_axis, error_rates
from analysis.bits import describe, label
from analysis.costs import Cost
from analysis.labels import Labels
from analysis.pareto import front_runs
from analysis.records import Run, Scores
from analysis.study import Study
from analysis.style import INK, MARKS, MUTED, PAPER, SETTINGS, SHADE, Picture, marks
from analysis.text import counted, listed, percent

WIDTH, HEIGHT = 6.6, 4.2  # inches: a text column, or the whole width of a page with two
STAR = MARKS["float"]


def tradeoff(study: Study, cost: Cost) -> Picture | None:
    """Draw word error rate against `cost`; None if no finished run has both."""
    if not any(cost.of(run) for run in study.finished):
        return None
    with mpl.rc_context(SETTINGS):
        return _Plot(study, cost).picture()


class _Plot:
    """One figure, drawn from back to front."""

    def __init__(self, study: Study, cost: Cost) -> None:
        self.study, self.cost = study, cost
        self.trials = [run for run in study.trials if cost.of(run)]
        self.front = front_runs(study, cost.of)
        self.refused = [run for run in study.unfinished if run.over_budget and cost.of(run)]
        self.float = study.float_scores
        self.marks = marks(run.method for run in self.trials)
        self.figure = Figure(figsize=(WIDTH, HEIGHT))
        self.tips: dict[str, str] = {}
        self.edge = float("inf")
        self.far = False

    def picture(self) -> Picture:
        """Draw everything."""
        top = self._legend()
        self.axes = self.figure.add_axes((0.085, 0.112, 0.895, top - 0.112))
        self._set_axes()
        labels = Labels(self.axes)
        self._budget(labels)
        self._reference(labels)
        self._refused(labels)
        self._staircase(labels)
        for run in self.trials:
            self._point(run, labels)
        labels.place([(*self._at(run), label(run)) for run in self.front])
        return Picture(self.cost.name, self.cost.title, self._caption(), self.figure, self.tips)

    def _at(self, run: Run) -> tuple[float, float]:
        return self._x(self.cost.of(run) or 0.0), 100 * self._scores(run).wer

    def _x(self, value: float) -> float:
        """Where a raw cost lies on the axis, which may be broken before the float models."""
        return min(value / self.cost.unit, self.edge)

    def _scaled(self, values: list[float | None]) -> list[float]:
        return [value / self.cost.unit for value in values if value]

    def _scores(self, run: Run) -> Scores:
        return run.scores[self.study.split]

    def _legend(self) -> float:
        """Draw the legend in up to three rows; return where the axes may begin below it."""
        handles = [self._float_handle()] * (self.float is not None)
        for name, mark in self.marks.items():
            if name == "float":  # trained like the others, but in float
                handles.append(
                    Line2D([], [], marker=STAR.marker, ls="", ms=8, mfc=PAPER, mec=STAR.color, label="float control")
                )
            else:
                handles.append(_handle(mark.marker, mark.color, name, mark.size))
        handles.append(Line2D([], [], marker="o", ls="", ms=5.5, mfc=PAPER, mec=MUTED, label="hollow: dominated"))
        if self.refused:
            handles.append(_handle("x", MUTED, "over budget, not trained", 4.5))
        rows = 1 if len(handles) < 6 else 2 if len(handles) < 11 else 3
        columns = -(-len(handles) // rows)
        self.figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(0.074, 1.0),
            ncols=columns,
            handletextpad=0.35,
            columnspacing=1.6,
            handlelength=1.2,
            borderaxespad=0.2,
            labelspacing=0.3,
        )
        return (0.925, 0.88, 0.835)[rows - 1]

    def _float_handle(self) -> Line2D:
        if self.cost.reference:
            return _handle(STAR.marker, STAR.color, "float baseline", 9)
        return Line2D([], [], color=STAR.color, lw=0.9, ls=(0, (1, 1.6)), label="float baseline")

    def _set_axes(self) -> None:
        inside = [self.cost.of(run) for run in [*self.trials, *self.refused] if run.policy != "float"]
        floats = [self.cost.of(run) for run in self.trials if run.policy == "float"] + [self.cost.reference]
        self.far = (self.cost.budget or 0.0) > 2 * max((value for value in [*inside, *floats] if value), default=0.0)
        budget = None if self.far else self.cost.budget
        self.edge = cost_axis(self.axes, self._scaled([*inside, budget]), self.cost.octaves, self._scaled(floats))
        error_axis(self.axes, *error_rates([*map(self._scores, self.trials), *([self.float] if self.float else [])]))
        self.axes.set_xlabel(self.cost.axis)
        self.axes.set_ylabel(f"Word error rate on {self.study.split} (%)")

    def _budget(self, labels: Labels) -> None:
        """A dashed line and shade beyond it; a word at the edge if everything is far below the budget."""
        if self.cost.budget is None:
            return
        x, high = self.cost.budget / self.cost.unit, self.axes.get_xlim()[1]
        words = f"budget {self.cost.words(self.cost.budget)}"
        if self.far:
            text = self.axes.text(1, 1, f"{words} →", transform=self.axes.transAxes, ha="right", va="top", fontsize=8)
            labels.block_text(text)
            return
        self.axes.axvspan(x, high, facecolor=SHADE, linewidth=0, zorder=0)
        self.axes.axvline(x, color=INK, linewidth=1, linestyle=(0, (5, 3)), zorder=2)
        room = labels.pixel(high, 1)[0] - labels.pixel(x, 1)[0] > 20 * labels.scale
        text = self.axes.annotate(
            words,
            (x, 1),
            (4 if room else -4, -3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            rotation=90,
            ha="left" if room else "right",
            va="top",
            fontsize=8,
            color=INK,
        )
        labels.block_text(text)
        labels.block_line((x, self.axes.get_ylim()[0]), (x, self.axes.get_ylim()[1]))

    def _reference(self, labels: Labels) -> None:
        if self.float is None:
            return
        if self.float.interval:
            low, high = self.float.interval
            self.axes.axhspan(100 * low, 100 * high, facecolor=MUTED, alpha=0.13, linewidth=0, zorder=1)
        y = 100 * self.float.wer
        self.axes.axhline(y, color=STAR.color, linewidth=0.9, linestyle=(0, (1, 1.6)), zorder=2)
        if self.cost.reference is None:
            return
        x = self._x(self.cost.reference)
        (point,) = self.axes.plot([x], [y], STAR.marker, color=STAR.color, ms=11, mec=PAPER, mew=0.6, zorder=8)
        self._tip(point, f"float baseline: {percent(self.float.wer)} % WER, {self.cost.words(self.cost.reference)}")
        labels.block_point(x, y, 7)

    def _refused(self, labels: Labels) -> None:
        """Crosses on the axis: candidates whose cost is known but whose error rate is not."""
        across = self.axes.get_xaxis_transform()
        for run in self.refused:
            x = self._x(self.cost.of(run) or 0.0)
            (point,) = self.axes.plot([x], [0.024], "x", transform=across, color=MUTED, ms=4.5, mew=1, zorder=3)
            self._tip(point, f"{_title(run)}: {run.reason or run.state}")
            labels.block_line((x, self.axes.get_ylim()[0]), (x, self.axes.get_ylim()[0]), radius=12)

    def _staircase(self, labels: Labels) -> None:
        """What is attainable at a cost: the error rate of the best model that is no dearer."""
        for (x0, y0), (x1, y1) in pairwise([self._at(run) for run in self.front]):
            self.axes.plot([x0, x1, x1], [y0, y0, y1], color=INK, linewidth=1.1, zorder=4, solid_joinstyle="miter")
            labels.block_line((x0, y0), (x1, y0))
            labels.block_line((x1, y0), (x1, y1))

    def _point(self, run: Run, labels: Labels) -> None:
        (x, y), mark, best = self._at(run), self.marks[run.method], run in self.front
        if interval := self._scores(run).interval:
            low, high = max(100 * interval[0], self.axes.get_ylim()[0]), 100 * interval[1]
            self.axes.plot([x, x], [low, high], color=mark.color, linewidth=0.9, alpha=1 if best else 0.45, zorder=5)
            labels.block_line((x, low), (x, high))
        (point,) = self.axes.plot(
            [x],
            [y],
            mark.marker,
            ms=mark.size,
            mfc=mark.color if best else PAPER,
            mec=mark.color,
            mew=1.1,
            zorder=7 if best else 6,
        )
        rate, cost = percent(self._scores(run).wer), self.cost.words(self.cost.of(run) or 0.0)
        self._tip(point, f"{_title(run)}: {rate} % WER, {cost}")
        labels.block_point(x, y, mark.size / 2 + 1)

    def _tip(self, line: Line2D, text: str) -> None:
        name = f"tip-{len(self.tips)}"
        line.set_gid(name)
        self.tips[name] = text

    def _caption(self) -> str:
        parts = [
            f"{counted(len(self.trials), 'trained trial')}; word error rate on {self.study.described_split}. "
            "Filled: on the Pareto front (the line is what is attainable at a given cost); "
            "hollow: dominated. Labels: bits per weight (W, a mean where layers differ) and per activation (A)."
        ]
        if any(self._scores(run).interval for run in self.trials):
            parts.append("Whiskers: 95 % bootstrap interval over utterances.")
        if self.cost.budget is not None:
            where = "Far to the right" if self.far else "Dashed"
            parts.append(f"{where}: the budget of {self.cost.words(self.cost.budget)}.")
        if self.refused:
            parts.append(f"Crosses: {counted(len(self.refused), 'candidate')} over a budget, pruned before training.")
        if self.float:
            signs = ["star"] * bool(self.cost.reference) + ["dotted line"] + ["band"] * bool(self.float.interval)
            interval = " and its interval" if self.float.interval else ""
            parts.append(f"{listed(signs).capitalize()}: the float baseline{interval}.")
        return " ".join(parts)


def _title(run: Run) -> str:
    return f"{run.name} ({run.method} {describe(run)})"


def _handle(marker: str, color: str, name: str, size: float) -> Line2D:
    return Line2D([], [], marker=marker, ls="", ms=size, color=color, label=name)
