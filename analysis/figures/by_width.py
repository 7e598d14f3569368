"""The figure of word error rate by bit width: policies side by side, one panel per way to treat activations."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.axes import error_scale, set_y
from analysis.figures.legend import BASELINE, handle, legend
from analysis.figures.style import MUTED, PAPER, SETTINGS, Mark, Picture, marks
from analysis.series import series
from analysis.study import Study

CELL = ["method", "weight_bits", "activation_bits"]


def by_width(study: Study) -> Iterator[Picture]:
    """Draw the study's series; nothing if there are none."""
    found = _percent(series(study))
    if found.empty:
        return
    settings = _percent(study.settings[study.settings.uniform])
    others = settings[~settings.setting.isin(found.setting)].merge(found[[*CELL, "kind", "name", "width"]], on=CELL)
    baseline = None if study.reference is None else _percent(study.reference.to_frame().T).iloc[0]
    with style.context(SETTINGS):
        figure = _figure(study, found, others, baseline)
    yield Picture("wer_by_width", "Word error rate by bit width", _caption(study, baseline), figure)


def _percent(runs: pd.DataFrame) -> pd.DataFrame:
    return runs.assign(**{name: 100 * runs[name].astype(float) for name in ("wer", "low", "high")})


def _figure(study: Study, found: pd.DataFrame, others: pd.DataFrame, baseline: pd.Series | None) -> Figure:
    looks = marks(found.name)
    handles = [handle(name, mark, lw=1.4, ls=mark.dash) for name, mark in looks.items()]
    if baseline is not None:
        handles.append(Line2D([], [], label="float baseline", **BASELINE))
    figure = Figure(figsize=(6.6, 3.2))
    taken = 3.2 * (1 - legend(figure, handles, handlelength=2.6)) + 0.28  # inches
    height = 2.7 + taken - 0.28
    figure.set_figheight(height)
    panels = figure.subplots(1, found.kind.nunique(), sharey=True, squeeze=False)[0]
    figure.subplots_adjust(left=0.085, right=0.985, bottom=0.46 / height, top=1 - taken / height, wspace=0.06)
    drawn = [found, others] if baseline is None else [found, others, baseline.to_frame().T]
    scale = error_scale(pd.concat([one[["wer", "low", "high"]] for one in drawn]).astype(float))
    widths = sorted(found.width.unique(), reverse=True)
    for axes, (kind, inside) in zip(panels, found.groupby("kind", sort=False), strict=True):
        set_y(axes, scale)
        _baseline(axes, baseline)
        _panel(axes, str(kind), inside, others[others.kind == kind], widths, looks)
    panels[0].set_ylabel(f"Word error rate on {study.split} (%)")
    return figure


def _baseline(axes: Axes, baseline: pd.Series | None) -> None:
    if baseline is not None:
        axes.axhspan(baseline.low, baseline.high, facecolor=MUTED, alpha=0.13, linewidth=0)
        axes.axhline(baseline.wer, **BASELINE)


def _panel(
    axes: Axes, kind: str, inside: pd.DataFrame, others: pd.DataFrame, widths: list[int], looks: dict[str, Mark]
) -> None:
    names = list(inside.name.unique())
    for index, name in enumerate(names):
        shift = min(0.13, 0.7 / len(names)) * (index - (len(names) - 1) / 2)
        line, rest = (one[one.name == name] for one in (inside, others))
        places = {width: place + shift for place, width in enumerate(widths)}
        _line(axes, line, rest, looks[name], places)
    axes.set_xticks(range(len(widths)), [str(width) for width in widths])
    axes.set_xlim(-0.5, len(widths) - 0.5)
    axes.set_xlabel("Bits per weight")
    axes.set_title(kind.capitalize())
    axes.tick_params(axis="y", length=0)


def _line(axes: Axes, line: pd.DataFrame, rest: pd.DataFrame, mark: Mark, places: dict[int, float]) -> None:
    """One series with its whiskers, and the settings that share its cells, small."""
    x = line.width.map(places)
    look: dict[str, Any] = {"color": mark.color, "marker": mark.marker}
    axes.plot(x, line.wer, ms=mark.size, lw=1.4, ls=mark.dash, mec=PAPER, mew=0.5, zorder=4, **look)
    axes.vlines(x, line.low.clip(lower=axes.get_ylim()[0]), line.high, color=mark.color, lw=0.9, zorder=3)
    small: dict[str, Any] = {"ls": "", "ms": 0.6 * mark.size, "mfc": "none", "mec": mark.color, "mew": 0.7}
    axes.plot(rest.width.map(places), rest.wer, **small, **look)


def _caption(study: Study, baseline: pd.Series | None) -> str:
    text = (
        f"Word error rate on {study.split} against bits per weight, for runs that quantize every layer alike. "
        "Whiskers: 95 % bootstrap interval over utterances. Where several settings share a width, the line goes "
        "through the one in the middle and the others are small and hollow."
    )
    if baseline is None:
        return text
    return f"{text} {'Dotted line' if pd.isna(baseline.low) else 'Dotted line and band'}: the float baseline."
