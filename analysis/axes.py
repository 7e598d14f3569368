"""Axes that error rates, sizes and latencies need: logarithmic where the range asks for it, with round ticks."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from analysis.records import Scores
from analysis.style import MUTED, PAPER

STEPS = (1, 1.5, 2, 3, 5, 7)


def error_rates(scores: Sequence[Scores]) -> tuple[list[float], list[float]]:
    """The rates and the ends of their intervals, per cent."""
    ends = [100 * end for score in scores for end in score.interval or ()]
    return [100 * score.wer for score in scores], ends


def error_axis(axes: Axes, rates: Sequence[float], ends: Sequence[float] = ()) -> None:
    """Make the y axis one of error rates in per cent: from zero if they are alike, logarithmic if they are not.

    Args:
        axes: where to.
        rates: every rate that is drawn, per cent; at least one.
        ends: ends of their intervals, per cent; the lowest may be cut off for the sake of the rates.
    """
    positive = [rate for rate in rates if rate > 0]
    lowest = min(positive, default=1.0)
    highest = max([*positive, *ends], default=1.0) or 1.0
    if highest / lowest <= 5:
        axes.set_ylim(0, 1.12 * highest)
    else:
        lowest = max(min([lowest, *(end for end in ends if end > 0)]), lowest / 2.5, highest / 3000)
        if any(rate <= 0 for rate in rates):  # zero has no logarithm, but it does occur: linear below the lowest rate
            axes.set_yscale("symlog", linthresh=lowest, linscale=0.6)
            axes.set_ylim(0 - 0.02 * lowest, 1.3 * highest)
        else:
            axes.set_yscale("log")
            axes.set_ylim(lowest / 1.2, 1.35 * highest)
        _fixed(axes, "y", _decades(*axes.get_ylim(), include_zero=min(rates) <= 0))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(True, axis="y")


def cost_axis(axes: Axes, values: Sequence[float], octaves: bool = True, beyond: Sequence[float] = ()) -> float:
    """Make the x axis one of sizes or times: logarithmic if they span more than a factor of 3.

    Args:
        axes: where to.
        values: every value that is drawn, in the axis' unit, positive.
        octaves: ticks at powers of two (sizes) instead of 1, 2, 5.
        beyond: values of float models, which may be much larger: then the axis is broken before them.

    Returns:
        Where on the axis the values beyond the break go; infinity if the axis is not broken.
    """
    broken = bool(values) and max(beyond, default=0.0) > 2 * max(values)
    inside = list(values) if broken else [*values, *beyond]
    low, high = min(inside), max(inside)
    logarithmic = high / low > 3
    span = high / low if logarithmic else (high - low) or 0.5 * high
    edge = (high * span**0.17 if logarithmic else high + 0.17 * span) if broken else math.inf
    end = edge if broken else high
    if logarithmic:
        axes.set_xscale("log")
        limits = low / span**0.06, end * span**0.06
        ticks = _octaves(limits[0], high * span**0.05) if octaves else _decades(limits[0], high * span**0.05)
    else:
        limits = max(0.0, low - 0.1 * span), end + 0.1 * span
        ticks = [tick for tick in MaxNLocator(6).tick_values(*limits) if limits[0] <= tick <= high + 0.05 * span]
    axes.set_xlim(*limits)
    _fixed(axes, "x", [*ticks, edge] if broken else ticks)
    far = f"{max(beyond, default=0.0):.3g}"
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: far if value == edge else f"{value:g}"))
    axes.grid(True, axis="x")
    if broken:
        _break(axes, math.sqrt(high * edge) if logarithmic else (high + edge) / 2)
    return edge


def _break(axes: Axes, x: float) -> None:
    """The sign that the axis goes on elsewhere."""
    axes.annotate(
        "//",
        (x, 0),
        xycoords=("data", "axes fraction"),
        ha="center",
        va="center",
        fontsize=9,
        color=MUTED,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.6},
        annotation_clip=False,
    )


def _fixed(axes: Axes, which: str, ticks: list[float]) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())


def _octaves(low: float, high: float) -> list[float]:
    """Powers of two between both; halves of octaves too while there are few."""
    exponents = range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)
    powers = [2.0**exponent for exponent in exponents]
    if sum(low <= value <= high for value in powers) < 4:
        powers = sorted([*powers, *(1.5 * value for value in powers)])
    return [value for value in powers if low <= value <= high]


def _decades(low: float, high: float, include_zero: bool = False) -> list[float]:
    """1, 2, 5 times powers of ten between both; finer while there are few."""
    floor = max(low, high / 1e4) if low <= 0 else low
    exponents = range(math.floor(math.log10(floor)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), STEPS):
        ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
        kept = [tick for tick in ticks if floor <= tick <= high]
        if len(kept) >= 4:
            break
    return ([0.0] if include_zero else []) + kept
