"""Axes of error rates, sizes and latencies: logarithmic, with round ticks, a place for zero, and the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator

from analysis.figures.style import INK, MUTED

LOCATORS = LogLocator(subs=(1, 2, 5)), LogLocator(subs=(1, 1.5, 2, 3, 5, 7)), MaxNLocator(6)
"""Finer and finer, for narrower and narrower axes."""


@dataclass(frozen=True)
class Scale:
    """An axis: what matplotlib and Vega draw alike."""

    kind: Literal["log", "symlog"]
    limits: tuple[float, float]
    ticks: list[float]
    linear: float = 1.0
    """Up to here a `symlog` axis is linear, for zero has no logarithm."""


def cost_scale(values: Sequence[float], floats: Sequence[float]) -> Scale:
    """A scale of positive sizes or times.

    Args:
        values: all that must lie on the axis.
        floats: those of float models, which may be much larger: they are drawn at the axis' end then.
    """
    low, most = min([*values, *floats]), max(values or floats)
    high = max(most, min(1.25 * most, max(floats, default=0.0)))
    room = 1.05 * (high / low) ** 0.04
    limits = low / room, high * room
    return Scale("log", limits, _ticks(*limits))


def error_scale(drawn: pd.DataFrame) -> Scale:
    """A scale of error rates.

    Args:
        drawn: `wer`, and the ends of its interval, `low` and `high`, of everything that is drawn; per cent. The lowest
            end may be cut off for the sake of the rates.
    """
    values = drawn[["wer", "low", "high"]].to_numpy(dtype=float)
    lowest = drawn.wer[drawn.wer > 0].min() if drawn.wer.any() else 1.0
    highest = 1.3 * np.nanmax([*values.flat, lowest])
    least = max(values[values > 0].min(initial=lowest), lowest / 2.5, highest / 4000)
    if drawn.wer.min() > 0:
        return Scale("log", (least / 1.2, highest), _ticks(least / 1.2, highest))
    return Scale("symlog", (-0.02 * least, highest), [0.0, *_ticks(least, highest)], least)


def set_axis(axes: Axes, name: Literal["x", "y"], scale: Scale, title: str) -> None:
    """Give the x or the y axis this scale."""
    options = {"linthresh": scale.linear, "linscale": 0.6} if scale.kind == "symlog" else {}
    (axes.set_xscale if name == "x" else axes.set_yscale)(scale.kind, **options)
    axes.set(**{f"{name}lim": scale.limits, f"{name}label": title, f"{name}ticks": scale.ticks})
    axes.set(**{f"{name}ticklabels": [f"{tick:g}" for tick in scale.ticks]})
    axes.minorticks_off()
    axes.grid(True, axis=name)


def draw_baseline(axes: Axes, baseline: pd.DataFrame) -> None:
    """A dotted line at the float baseline's error rate, a band over its interval; `baseline` has one row, or none."""
    for one in baseline.itertuples():
        axes.axhspan(one.low, one.high, facecolor=MUTED, alpha=0.13, linewidth=0, zorder=1)
        axes.axhline(one.wer, color=INK, linewidth=0.9, linestyle=":", zorder=2)


def _ticks(low: float, high: float) -> list[float]:
    found: list[float] = []
    for locator in LOCATORS:
        found = [float(tick) for tick in locator.tick_values(low, high) if low <= tick <= high]
        if len(found) >= 4:
            break
    return found
