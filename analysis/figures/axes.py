"""Axes that error rates, sizes and latencies need: logarithmic where the range asks for it, with round ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from analysis.figures.style import MUTED, PAPER

STEPS = (1, 1.5, 2, 3, 5, 7)


@dataclass(frozen=True)
class Scale:
    """An axis: what matplotlib and Vega draw alike."""

    kind: str
    """`linear`, `log`, or `symlog`: linear up to `smallest`, then logarithmic."""
    limits: tuple[float, float]
    ticks: list[float]
    smallest: float = 1.0
    edge: float = math.inf
    """Where values go that lie beyond a break of the axis; the last tick then."""
    far: str = ""
    """What is written there."""
    gap: float = 0.0
    """Where the break is."""

    def word(self, tick: float) -> str:
        """What is written at a tick."""
        return self.far if tick == self.edge else f"{tick:g}"


def error_scale(drawn: pd.DataFrame) -> Scale:
    """A scale of error rates: from zero if they are alike, logarithmic if they are not.

    Args:
        drawn: `wer`, and the ends of its interval, `low` and `high`, of everything that is drawn; per cent. The lowest
            end may be cut off for the sake of the rates.
    """
    rates, ends = drawn.wer, pd.concat([drawn.low, drawn.high])
    lowest = min(rates[rates > 0], default=1.0)
    highest = np.nanmax([*rates, *ends]) or 1.0
    if highest / lowest <= 5:
        limits = 0.0, 1.12 * highest
        return Scale("linear", limits, _even(*limits))
    lowest = max(min([lowest, *ends[ends > 0]]), lowest / 2.5, highest / 3000)
    if min(rates) > 0:
        limits = lowest / 1.2, 1.35 * highest
        return Scale("log", limits, _decades(*limits))
    limits = 0 - 0.02 * lowest, 1.3 * highest  # zero has no logarithm, but it does occur
    return Scale("symlog", limits, [0.0, *_decades(*limits)], lowest)


def cost_scale(values: Sequence[float], octaves: bool = True, beyond: Sequence[float] = ()) -> Scale:
    """A scale of sizes or times: logarithmic if they span more than a factor of 3.

    Args:
        values: every value that is drawn, in the axis' unit, positive.
        octaves: ticks at powers of two (sizes) instead of 1, 2, 5.
        beyond: values of float models, which may be much larger: then the axis is broken before them.
    """
    broken = bool(values) and max(beyond, default=0.0) > 2 * max(values)
    inside = list(values) if broken else [*values, *beyond]
    low, high = min(inside), max(inside)
    logarithmic = high / low > 3
    span = high / low if logarithmic else (high - low) or 0.5 * high
    edge = (high * span**0.17 if logarithmic else high + 0.17 * span) if broken else math.inf
    end = edge if broken else high
    if logarithmic:
        limits = low / span**0.06, end * span**0.06
        ticks = (_octaves if octaves else _decades)(limits[0], high * span**0.05)
    else:
        limits = max(0.0, low - 0.1 * span), end + 0.1 * span
        ticks = [tick for tick in _even(*limits) if tick <= high + 0.05 * span]
    kind = "log" if logarithmic else "linear"
    if not broken:
        return Scale(kind, limits, ticks)
    gap = math.sqrt(high * edge) if logarithmic else (high + edge) / 2
    return Scale(kind, limits, [*ticks, edge], edge=edge, far=f"{max(beyond):.3g}", gap=gap)


def set_x(axes: Axes, scale: Scale) -> None:
    """Give the x axis this scale."""
    axes.set_xscale(scale.kind)
    axes.set_xlim(*scale.limits)
    _set_ticks(axes.xaxis, scale)
    axes.grid(True, axis="x")
    if scale.edge < math.inf:
        _break(axes, scale.gap)


def set_y(axes: Axes, scale: Scale) -> None:
    """Give the y axis this scale."""
    options = {"linthresh": scale.smallest, "linscale": 0.6} if scale.kind == "symlog" else {}
    axes.set_yscale(scale.kind, **options)
    axes.set_ylim(*scale.limits)
    _set_ticks(axes.yaxis, scale)
    axes.grid(True, axis="y")


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


def _set_ticks(axis: Axis, scale: Scale) -> None:
    axis.set_major_locator(FixedLocator(scale.ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: scale.word(value)))


def _even(low: float, high: float) -> list[float]:
    ticks = MaxNLocator(6).tick_values(low, high)
    return [float(tick) for tick in ticks if low <= tick <= high]


def _octaves(low: float, high: float) -> list[float]:
    """Powers of two between both; halves of octaves too while there are few."""
    exponents = range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)
    powers = [2.0**exponent for exponent in exponents]
    if sum(low <= value <= high for value in powers) < 4:
        powers = sorted([*powers, *(1.5 * value for value in powers)])
    return [value for value in powers if low <= value <= high]


def _decades(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten between both; finer while there are few."""
    floor = max(low, high / 1e4) if low <= 0 else low
    exponents = range(math.floor(math.log10(floor)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), STEPS):
        ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
        kept = [tick for tick in ticks if floor <= tick <= high]
        if len(kept) >= 4:
            break
    return kept
