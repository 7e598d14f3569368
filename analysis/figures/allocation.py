"""Bits by layer: one row per trial of the size front, one column per layer, the widths in the cells."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from analysis.figures.points import costs, points
from analysis.figures.style import MUTED, PAPER, Picture, short
from analysis.study import Study
from analysis.text import percent, size
from qstudy.bits import FLOAT

MOST = 300  # rows or columns: beyond, no picture is as large
DARK, LIGHT = "#101014", "#fdfdfd"


def allocation(study: Study) -> Iterator[Picture]:
    """Draw the widths of the front's trials, smallest first; nothing if no trial tells its widths, or too many do."""
    told = study.layers[study.layers.weight.notna()]
    best = {name for cost in costs(study) for name in points(study, cost).front.run}
    runs = study.settings[study.settings.run.isin(best & set(told.run))].sort_values(["size_bytes", "run"])
    layers = told[told.run.isin(runs.run)]
    if 0 < max(len(runs), layers.layer.nunique()) <= MOST:
        yield Picture("bit_allocation", "Bits by layer", _caption(study), _figure(runs, layers))


def _figure(runs: pd.DataFrame, layers: pd.DataFrame) -> Figure:
    names, rows = list(layers.layer.unique()), list(runs.run)
    figure = Figure(figsize=(3 + 0.6 * len(names), 1.1 + 0.27 * len(rows)), layout="constrained")
    axes = figure.subplots()
    weights = layers.pivot(index="run", columns="layer", values="weight").loc[rows, names]
    # More bits, darker: the order survives grey print; the digits in the cells carry it anyway.
    axes.pcolormesh(
        weights.where(weights != FLOAT), cmap="YlGnBu", norm=LogNorm(1.6, 16), edgecolors=PAPER, linewidth=3
    )
    for one in layers.itertuples():
        text = _words(one)
        ink = MUTED if one.weight == FLOAT else LIGHT if one.weight > 5 else DARK
        place = names.index(one.layer) + 0.5, rows.index(one.run) + 0.5
        axes.annotate(text, place, ha="center", va="center", fontsize=8, color=ink)
    parameters = layers.groupby("layer", sort=False).parameters.max().fillna(0)
    shares = 100 * parameters / max(1, parameters.sum())
    _edges(axes, runs, [f"{short(str(name))}  {share:.0f} %" for name, share in shares.items()])
    return figure


def _edges(axes: Axes, runs: pd.DataFrame, names: list[str]) -> None:
    """What stands above the columns; and beside every row: its policy, its size and its error rate."""
    axes.set_xticks([place + 0.5 for place in range(len(names))], names, rotation=32, ha="left", rotation_mode="anchor")
    axes.set_yticks([place + 0.5 for place in range(len(runs))], runs.title.map(short))
    axes.xaxis.tick_top()
    right = axes.secondary_yaxis("right")
    words = [f"{size(bytes):>9}  {percent(wer):>5} %" for bytes, wer in zip(runs.size_bytes, runs.wer, strict=True)]
    right.set_yticks(axes.get_yticks(), words)
    for one in (axes, right):
        one.tick_params(length=0)
        one.spines[:].set_visible(False)
    axes.invert_yaxis()


def _words(layer: Any) -> str:
    """A layer's widths, weight/activation: `4/8`; `4` where activations are float, or where there are none."""
    if layer.weight == layer.activation == FLOAT:
        return "float"
    weight = "f" if layer.weight == FLOAT else f"{layer.weight:.0f}"
    alone = layer.activation == FLOAT or layer.kind == "embedding"
    return weight if alone else f"{weight}/{layer.activation:.0f}"


def _caption(study: Study) -> str:
    return (
        "Bits of every layer in the trials on a Pareto front (of size or latency), smallest model first. A cell "
        "reads weight bits / activation bits, or weight bits alone where activations stay in float; darker: more bits; "
        f"without colour: float. Above: each layer's share of the parameters; right: size, and WER on {study.split}."
    )
