"""The figure of word error rate by bit width: policies side by side, one panel per way to treat activations."""

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.axes import error_axis, error_rates
from analysis.records import Run, Scores
from analysis.study import Study
from analysis.style import MARKS, MUTED, PAPER, SETTINGS, Mark, Picture, marks
from analysis.widths import Series, representative
from analysis.widths import widths as all_widths


def widths_plot(study: Study, found: list[Series]) -> Picture | None:
    """Draw the series; None if there are none."""
    if not found:
        return None
    kinds = list(dict.fromkeys(one.kind for one in found))
    looks = marks(one.policy for one in found)
    widths = all_widths(found)
    with mpl.rc_context(SETTINGS):
        handles = _handles(study, looks)
        columns = len(handles) if len(handles) < 5 else 4
        legend = 0.21 * -(-len(handles) // columns) + 0.27  # inches
        figure = Figure(figsize=(6.6, 2.7 + legend))
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        height = figure.get_figheight()
        figure.subplots_adjust(left=0.085, right=0.985, bottom=0.46 / height, top=1 - legend / height, wspace=0.06)
        error_axis(panels[0], *error_rates(_scores(study, found)))
        for axes, kind in zip(panels, kinds, strict=True):
            inside = [one for one in found if one.kind == kind]
            _panel(axes, study, inside, widths, looks)
        panels[0].set_ylabel(f"Word error rate on {study.split} (%)")
        figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(0.07, 1.0),
            ncols=columns,
            handlelength=2.6,
            columnspacing=1.6,
            borderaxespad=0.3,
        )
    return Picture("wer_by_width", "Word error rate by bit width", _caption(study), figure)


def _panel(axes: Axes, study: Study, inside: list[Series], widths: list[int], looks: dict[str, Mark]) -> None:
    if scores := study.float_scores:
        if scores.interval:
            low, high = scores.interval
            axes.axhspan(100 * low, 100 * high, facecolor=MUTED, alpha=0.13, linewidth=0)
        axes.axhline(100 * scores.wer, color=MARKS["float"].color, lw=0.9, ls=(0, (1, 1.6)))
    for index, one in enumerate(inside):
        shift = min(0.13, 0.7 / len(inside)) * (index - (len(inside) - 1) / 2)
        _line(axes, study.split, one, widths, looks[one.policy], shift)
    axes.set_xticks(range(len(widths)), [str(width) for width in widths])
    axes.set_xlim(-0.5, len(widths) - 0.5)
    axes.set_xlabel("Bits per weight")
    axes.set_title(inside[0].kind.capitalize())
    axes.grid(True, axis="y")
    axes.tick_params(axis="y", length=0)


def _line(axes: Axes, split: str, one: Series, widths: list[int], mark: Mark, shift: float) -> None:
    middle: dict[int, Run] = {width: representative(runs, split) for width, runs in one.runs.items()}
    places = [widths.index(width) + shift for width in middle]
    rates = [100 * run.scores[split].wer for run in middle.values()]
    axes.plot(
        places,
        rates,
        marker=mark.marker,
        ms=mark.size,
        color=mark.color,
        lw=1.4,
        ls=mark.dash,
        mec=PAPER,
        mew=0.5,
        zorder=4,
    )
    for place, (width, chosen) in zip(places, middle.items(), strict=True):
        _whisker(axes, place, chosen.scores[split], mark)
        others = [100 * run.scores[split].wer for run in one.runs[width] if run is not chosen]
        axes.plot(
            [place] * len(others),
            others,
            marker=mark.marker,
            ls="",
            ms=0.6 * mark.size,
            mfc="none",
            mec=mark.color,
            mew=0.7,
        )


def _whisker(axes: Axes, place: float, scores: Scores, mark: Mark) -> None:
    if scores.interval:
        low, high = max(100 * scores.interval[0], axes.get_ylim()[0]), 100 * scores.interval[1]
        axes.plot([place, place], [low, high], color=mark.color, lw=0.9, zorder=3)


def _scores(study: Study, found: list[Series]) -> list[Scores]:
    scores = [run.scores[study.split] for one in found for runs in one.runs.values() for run in runs]
    return [*scores, study.float_scores] if study.float_scores else scores


def _handles(study: Study, looks: dict[str, Mark]) -> list[Line2D]:
    handles = [
        Line2D([], [], marker=mark.marker, ms=mark.size, color=mark.color, lw=1.4, ls=mark.dash, label=name)
        for name, mark in looks.items()
    ]
    if study.reference:
        handles.append(Line2D([], [], color=MARKS["float"].color, lw=0.9, ls=(0, (1, 1.6)), label="float baseline"))
    return handles


def _caption(study: Study) -> str:
    band = "Dotted line and band" if study.float_scores and study.float_scores.interval else "Dotted line"
    return (
        f"Word error rate on {study.split} against bits per weight, for runs that quantize every layer alike. "
        "Whiskers: 95 % bootstrap interval over utterances. Where several runs share a width, the line goes through "
        "the one in the middle and the others are small and hollow."
        + (f" {band}: the float baseline." if study.float_scores else "")
    )
