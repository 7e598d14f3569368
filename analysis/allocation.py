"""Bits by layer: one row per trial of the size front, one column per layer, the widths in the cells."""

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.bits import cell, is_table
from analysis.costs import costs
from analysis.pareto import front_runs
from analysis.records import Run, Width
from analysis.study import Study
from analysis.style import GRID, INK, MUTED, PAPER, SETTINGS, Mark, Picture, marks
from analysis.text import percent, size

# More bits, darker: the order survives grey print; the digits in the cells carry it anyway.
SHADES = {
    2: "#fff3c4",
    3: "#fbdc8b",
    4: "#f2b56b",
    5: "#dd8a63",
    6: "#b86473",
    7: "#864a7e",
    8: "#533a7b",
    16: "#2c2a5e",
}
DARK = "#101014"
LIGHT = "#fdfdfd"
MOST = 300  # rows or columns: beyond, no picture is as large
ROW, COLUMN = 0.27, 0.66  # inches
LEFT, RIGHT, TOP, BOTTOM = 1.35, 1.55, 0.95, 0.08  # inches around the grid


def allocation(study: Study) -> Picture | None:
    """Draw the widths of the front's trials, smallest first; None if no such trial tells its widths, or too many do."""
    runs = _runs(study)
    names = list(dict.fromkeys(name for run in runs for name in run.widths))
    if not runs or max(len(runs), len(names)) > MOST:
        return None
    with mpl.rc_context(SETTINGS):
        width, height = LEFT + COLUMN * len(names) + RIGHT, TOP + ROW * len(runs) + BOTTOM
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((LEFT / width, BOTTOM / height, COLUMN * len(names) / width, ROW * len(runs) / height))
        _frame(axes, runs, names)
        looks = marks(run.method for run in study.trials)
        for row, run in enumerate(runs):
            _row(axes, row, run, names, study, looks[run.method])
    return Picture("bit_allocation", "Bits by layer", _caption(study), figure)


def _runs(study: Study) -> list[Run]:
    """Trials on the front of size or of any latency, smallest first."""
    found = {run.name: run for cost in costs(study) for run in front_runs(study, cost.of) if run.widths}
    return sorted(found.values(), key=lambda run: (run.size_bytes or 0.0, run.name))


def _frame(axes: Axes, runs: list[Run], names: list[str]) -> None:
    axes.set(xlim=(0, len(names)), ylim=(len(runs), 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    totals = {name: max(run.layers[name].parameters if name in run.layers else 0 for run in runs) for name in names}
    whole = sum(totals.values())
    for column, name in enumerate(names):
        share = _share(totals[name] / whole) if whole else ""
        axes.annotate(
            share, (column + 0.5, 0), (0, 4), textcoords="offset points", ha="center", fontsize=7, color=MUTED
        )
        axes.annotate(
            name,
            (column + 0.5, 0),
            (-2, 15),
            textcoords="offset points",
            rotation=32,
            ha="left",
            va="bottom",
            rotation_mode="anchor",
            fontsize=8,
        )
    for text, points, align in (("share of parameters", -8, "right"), ("size", 48, "right"), ("WER (%)", 100, "right")):
        x = 0 if points < 0 else len(names)
        axes.annotate(text, (x, 0), (points, 4), textcoords="offset points", ha=align, fontsize=7, color=MUTED)


def _share(fraction: float) -> str:
    return f"{100 * fraction:.0f} %" if fraction >= 0.01 else "< 1 %"


def _row(axes: Axes, row: int, run: Run, names: list[str], study: Study, mark: Mark) -> None:
    middle = row + 0.5
    for column, name in enumerate(names):
        _cell(axes, column, row, run.widths.get(name), is_table(run, name))
    axes.annotate(run.title, (0, middle), (-20, 0), textcoords="offset points", ha="right", va="center", fontsize=8)
    axes.plot([-0.15 / COLUMN], [middle], mark.marker, ms=mark.size, color=mark.color, clip_on=False)
    end = (len(names), middle)
    axes.annotate(size(run.size_bytes), end, (48, 0), textcoords="offset points", ha="right", va="center", fontsize=8)
    rate = percent(run.wer(study.split))
    axes.annotate(rate, end, (100, 0), textcoords="offset points", ha="right", va="center", fontsize=8)


def _cell(axes: Axes, column: int, row: int, width: Width | None, tabular: bool) -> None:
    if width is None:
        return
    color = SHADES.get(width.weight, PAPER)
    box = Rectangle((column + 0.03, row + 0.06), 0.94, 0.88, facecolor=color, edgecolor=GRID, linewidth=0.6)
    axes.add_patch(box)
    ink = INK if color == PAPER else DARK if _luminance(color) > 0.55 else LIGHT
    if not width.quantized:
        ink = MUTED
    text = cell(width, tabular)
    axes.text(column + 0.5, row + 0.52, text, ha="center", va="center", fontsize=8, color=ink)


def _luminance(color: str) -> float:
    red, green, blue = to_rgb(color)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _caption(study: Study) -> str:
    return (
        "Bits of every layer in the trials on a Pareto front (of size or latency), smallest model first. A cell "
        "reads weight bits / activation bits, or weight bits alone where activations stay in float; darker: more bits; "
        f"without colour: float. WER is on {study.split}."
    )
