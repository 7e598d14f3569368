"""All settings of a task in one picture: colour by policy, label by architecture; each point a link to its run."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.axes import cost_scale, error_scale, set_axis
from analysis.figures.labels import along, write_labels
from analysis.figures.points import in_percent
from analysis.figures.style import INK, MUTED, PAPER, Mark, Picture, framed, handle, marks
from analysis.joint import ACCELERATOR, Task
from analysis.text import MIB, slug

UNUSABLE = 60.0
"""Per cent: models that miss most words would only stretch the axis."""
AXES = {
    "size": ("size_bytes", MIB, "Packed model size (MiB)"),
    "latency": ("latency_ms", 1.0, f"Simulated latency on {ACCELERATOR} (ms)"),
}


def joint(task: Task) -> Iterator[Picture]:
    """Draw word error rate against size, and against latency."""
    for name, (column, unit, label) in AXES.items():
        shown = in_percent(task.settings).assign(cost=task.settings[column] / unit)
        shown = shown[(shown.cost > 0) & (shown.wer < UNUSABLE)]
        if len(shown) < 2:
            continue
        title = f"All policies and architectures on {task.name}: word error rate against {name}"
        yield Picture(
            f"joint_{slug(task.name)}_{name}", title, _caption(task, name, shown), _figure(task, shown, label)
        )


def anchor(study: str, run: str) -> str:
    """The place on the page that tells of a run."""
    return f"run-{slug(study)}-{slug(run)}"


def _figure(task: Task, shown: pd.DataFrame, label: str) -> Figure:
    looks = marks(shown.policy)
    hollow = handle("hollow: dominated in size", Mark(MUTED, "o"), filled=False)
    figure = framed(4.3, [*(handle(name, mark) for name, mark in looks.items()), hollow])
    axes = figure.subplots()
    set_axis(axes, "x", cost_scale(list(shown.cost), []), label)
    scale = error_scale(shown.assign(low=shown.wer, high=shown.wer))
    set_axis(axes, "y", scale, f"Word error rate on {task.studies[0].split} (%)")
    for (best, policy), some in shown.groupby(["on_front", "policy"], sort=False):
        mark = looks[str(policy)]
        axes.scatter(
            some.cost,
            some.wer,
            (mark.size if best else 0.75 * mark.size) ** 2,
            marker=mark.marker,
            facecolors=mark.color if best else PAPER,
            edgecolors=mark.color,
            linewidths=1.0,
            zorder=7 if best else 5,
            clip_on=False,
            urls=[f"#{anchor(one.study, one.run)}" for one in some.itertuples()],
        )
    _front(axes, shown)
    return figure


def _front(axes: Axes, shown: pd.DataFrame) -> None:
    """The staircase of what is attainable, named by architecture and widths; where it is one (over size)."""
    front = _on_front(shown)
    axes.vlines(front.cost, front.low, front.high, MUTED, lw=0.8, alpha=0.7, zorder=4)
    corners = front[["cost", "wer"]].to_numpy()
    if _falls(front):
        corners = np.column_stack([np.repeat(front.cost, 2)[1:], np.repeat(front.wer, 2)[:-1]])
        axes.plot(*corners.T, color=INK, linewidth=1.0, zorder=4)
    axes.figure.figure.draw_without_rendering()
    spots = np.vstack([axes.transData.transform(shown[["cost", "wer"]]), along(axes, corners[:-1], corners[1:])])
    labels = front.architecture + " " + front.label
    write_labels(axes, zip(front.cost, front.wer, labels, strict=True), spots)


def _on_front(shown: pd.DataFrame) -> pd.DataFrame:
    return shown[shown.on_front].sort_values("cost")


def _falls(front: pd.DataFrame) -> bool:
    """Whether the front is a staircase here: it need not be where dev and test differ, or the axis is another."""
    return len(front) > 1 and bool((np.diff(front.wer) <= 0).all())


def _caption(task: Task, name: str, shown: pd.DataFrame) -> str:
    names = ", ".join(study.name for study in task.studies)
    line = "; the line joins them" * _falls(front := _on_front(shown))
    if not line and name == "size" and len(front) > 1:
        line = f"; chosen on {task.chosen_on}, so not monotone here, and not joined"
    return (
        f"Settings of {names}, with the float models that they started from; word error rate on {task.described}. "
        f"Filled: on the common Pareto front of size against the rate on {task.chosen_on}, with 95 % intervals{line}; "
        f"hollow: dominated. Models that miss more than {UNUSABLE:.0f} % of the words are left out. A point is a link "
        "to its configuration and command."
    )
