"""The figure of word error rate by bit width: policies side by side, one panel per way to treat activations."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.axes import draw_baseline, error_scale, set_axis
from analysis.figures.points import MANY, in_percent
from analysis.figures.style import INK, PAPER, Mark, Picture, framed, handle, marks
from analysis.series import named, series
from analysis.study import Study

CELL = ["name", "weight_bits", "activation_bits"]
"""What settings share that lie at one place of the figure."""


def by_width(study: Study) -> Iterator[Picture]:
    """Draw the study's series; nothing if there are none."""
    found = in_percent(series(study))
    if found.empty:
        return
    settings = in_percent(study.settings[study.settings.uniform])
    rest = settings.assign(name=named(study, settings, "method"))[~settings.setting.isin(found.setting)]
    others = rest.merge(found[[*CELL, "kind", "width"]], on=CELL)
    figure = _figure(study, found, others)
    yield Picture("wer_by_width", "Word error rate by bit width", _caption(study), figure)


def _figure(study: Study, found: pd.DataFrame, others: pd.DataFrame) -> Figure:
    looks, baseline = marks(found.name), in_percent(study.references)
    handles = [handle(name, mark, line="-") for name, mark in looks.items()]
    line = [handle("float baseline", Mark(INK, ""), line=":")] * bool(len(baseline))
    figure = framed(2.8, [*handles, *line])
    panels = figure.subplots(1, found.kind.nunique(), sharey=True, squeeze=False)[0]
    scale = error_scale(pd.concat([found, others, baseline]))
    set_axis(panels[0], "y", scale, f"Word error rate on {study.split} (%)")
    widths = sorted(found.width.unique(), reverse=True)
    for axes, (kind, inside) in zip(panels, found.groupby("kind", sort=False), strict=True):
        axes.grid(True, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xticks(range(len(widths)), [str(width) for width in widths])
        axes.set(title=str(kind).capitalize(), xlabel="Bits per weight", xlim=(-0.5, len(widths) - 0.5))
        draw_baseline(axes, baseline)
        _panel(axes, inside, others[others.kind == kind], widths, looks)
    return figure


def _panel(axes: Axes, inside: pd.DataFrame, others: pd.DataFrame, widths: list[int], looks: dict[str, Mark]) -> None:
    """Series side by side, so that whiskers stay apart; settings that share a cell with a series are small."""
    names = list(inside.name.unique())
    shifts = min(0.13, 0.7 / len(names)) * (np.arange(len(names)) - (len(names) - 1) / 2)
    for name, shift in zip(names, shifts, strict=True):
        line, rest = (one[one.name == name] for one in (inside, others))
        x, small = (one.width.map(widths.index) + shift for one in (line, rest))
        color, marker, size = looks[name].color, looks[name].marker, looks[name].size
        axes.plot(x, line.wer, marker=marker, color=color, ms=size, lw=1.3, mec=PAPER, mew=0.5, zorder=4)
        axes.vlines(x, line.low.clip(lower=axes.get_ylim()[0]), line.high, color=color, lw=0.9, zorder=3)
        axes.plot(small, rest.wer, marker, color=color, ms=0.6 * size, mfc="none", mew=0.7, rasterized=len(rest) > MANY)


def _caption(study: Study) -> str:
    text = (
        f"Word error rate on {study.split} against bits per weight, for runs that quantize every layer alike. "
        f"Whiskers: 95 % bootstrap interval over {study.resampled}. "
        "Where several settings share a width, the line goes through the middle one of those with the most seeds; the "
        "others are small and hollow."
    )
    if study.references.empty:
        return text
    return (
        f"{text} {'Dotted line and band' if study.references.low.notna().all() else 'Dotted line'}: the float baseline."
    )
