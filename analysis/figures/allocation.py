"""Bits by layer: one row per trial of the size front, one column per layer, the widths in the cells."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.figures.points import costs, points
from analysis.figures.style import GRID, INK, MUTED, PAPER, SETTINGS, Picture, marks
from analysis.study import Study
from analysis.text import percent, size
from qstudy.bits import FLOAT

# More bits, darker: the order survives grey print; the digits in the cells carry it anyway.
SHADES = {2: "#fff3c4", 3: "#fbdc8b", 4: "#f2b56b", 5: "#dd8a63"}
SHADES |= {6: "#b86473", 7: "#864a7e", 8: "#533a7b", 16: "#2c2a5e"}
Pair = tuple[float, float]
DARK = "#101014"
LIGHT = "#fdfdfd"
MOST = 300  # rows or columns: beyond, no picture is as large
ROW, COLUMN = 0.27, 0.66  # inches
LEFT, RIGHT, TOP, BOTTOM = 1.35, 1.55, 0.95, 0.08  # inches around the grid


def allocation(study: Study) -> Iterator[Picture]:
    """Draw the widths of the front's trials, smallest first; nothing if no trial tells its widths, or too many do."""
    widths = study.layers[study.layers.weight.notna()]
    runs = _runs(study, widths)
    widths = widths[widths.run.isin(runs.run)]
    names = list(dict.fromkeys(widths.layer))
    if not 0 < max(len(runs), len(names)) <= MOST:
        return
    width, height = LEFT + COLUMN * len(names) + RIGHT, TOP + ROW * len(runs) + BOTTOM
    box = LEFT / width, BOTTOM / height, COLUMN * len(names) / width, ROW * len(runs) / height
    with style.context(SETTINGS):
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes(box)
        _frame(axes, widths, names, len(runs))
        _ends(axes, runs, len(names), study)
        for one in widths.itertuples():
            _cell(axes, names.index(one.layer), list(runs.run).index(one.run), one)
    yield Picture("bit_allocation", "Bits by layer", _caption(study), figure)


def _runs(study: Study, widths: pd.DataFrame) -> pd.DataFrame:
    """Trials on the front of size or of any latency that tell their widths, smallest first."""
    found = {name for cost in costs(study) for name in points(study, cost).front.run}
    trials = study.settings[study.settings.run.isin(found & set(widths.run))]
    return trials.sort_values(["size_bytes", "run"], ignore_index=True)


def _frame(axes: Axes, widths: pd.DataFrame, names: list[str], rows: int) -> None:
    axes.set(xlim=(0, len(names)), ylim=(rows, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    totals = widths.groupby("layer").parameters.max().fillna(0)
    for column, name in enumerate(names):
        share = _share(totals[name] / totals.sum()) if totals.sum() else ""
        _note(axes, share, (column + 0.5, 0), (0, 4), "center", fontsize=7, color=MUTED)
        _note(axes, name, (column + 0.5, 0), (-2, 15), "left", "bottom", rotation=32, rotation_mode="anchor")
    for text, right, x in (("share of parameters", -8, 0), ("size", 48, len(names)), ("WER (%)", 100, len(names))):
        _note(axes, text, (x, 0), (right, 4), "right", fontsize=7, color=MUTED)


def _ends(axes: Axes, runs: pd.DataFrame, columns: int, study: Study) -> None:
    """What stands beside every row: its policy, its size, its error rate."""
    looks = marks(study.trials.method)
    for row, run in runs.iterrows():
        middle, look = float(str(row)) + 0.5, looks[run.method]
        axes.plot([-0.15 / COLUMN], [middle], look.marker, ms=look.size, color=look.color, clip_on=False)
        _note(axes, run.title, (0, middle), (-20, 0), "right", "center")
        _note(axes, size(run.size_bytes), (columns, middle), (48, 0), "right", "center")
        _note(axes, percent(run.wer), (columns, middle), (100, 0), "right", "center")


def _note(axes: Axes, text: str, place: Pair, offset: Pair, ha: str, va: str = "baseline", **look: Any) -> None:
    axes.annotate(text, place, offset, textcoords="offset points", ha=ha, va=va, **{"fontsize": 8, **look})


def _share(fraction: float) -> str:
    return f"{100 * fraction:.0f} %" if fraction >= 0.01 else "< 1 %"


def _cell(axes: Axes, column: int, row: int, layer: Any) -> None:
    color = SHADES.get(int(layer.weight), PAPER)
    box = Rectangle((column + 0.03, row + 0.06), 0.94, 0.88, facecolor=color, edgecolor=GRID, linewidth=0.6)
    axes.add_patch(box)
    text = _words(layer)
    ink = MUTED if text == "float" else INK if color == PAPER else DARK if _luminance(color) > 0.55 else LIGHT
    axes.text(column + 0.5, row + 0.52, text, ha="center", va="center", fontsize=8, color=ink)


def _words(layer: Any) -> str:
    """A layer's widths, weight/activation: `4/8`; `4` where activations are float, or where there are none."""
    if layer.weight == layer.activation == FLOAT:
        return "float"
    weight = "f" if layer.weight == FLOAT else f"{layer.weight:.0f}"
    alone = layer.activation == FLOAT or layer.kind == "embedding"
    return weight if alone else f"{weight}/{layer.activation:.0f}"


def _luminance(color: str) -> float:
    red, green, blue = to_rgb(color)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _caption(study: Study) -> str:
    return (
        "Bits of every layer in the trials on a Pareto front (of size or latency), smallest model first. A cell "
        "reads weight bits / activation bits, or weight bits alone where activations stay in float; darker: more bits; "
        f"without colour: float. WER is on {study.split}."
    )
