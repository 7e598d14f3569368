"""What the page's script needs for its plots: `templates/plot.js` draws them, with hover and filters."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.markers import MarkerStyle

from analysis.figures.points import Points, costs, in_percent, points
from analysis.figures.style import ROLES, Mark, marks
from analysis.study import Study


def plot(shown: Points, place: int) -> dict[str, Any]:
    """One plot of the runs, whose columns `cost_PLACE` and `front_PLACE` stand in `columns`."""
    rated = pd.concat([shown.baseline, shown.trials])
    methods = marks(rated.method)
    looks = {title: methods[name] for title, name in rated[["title", "method"]].itertuples(index=False)}
    return {
        "place": place,
        "x": asdict(shown.x) | {"title": shown.cost.axis},
        "y": asdict(shown.y) | {"title": f"Word error rate on {shown.study.split} (%)"},
        "colors": {title: ROLES.get(mark.color, mark.color) for title, mark in looks.items()},
        "shapes": {title: outline(mark) for title, mark in looks.items()},
        "front": plain(shown.front[["cost", "wer"]]),
        "baseline": plain(shown.baseline[["wer", "low", "high"]]),
        "budget": [{"cost": limit} for limit in shown.budget],
        "few": shown.few,
    }


def outline(mark: Mark) -> str:
    """A mark as the SVG path, about 2 units across, that Vega draws points with."""
    style = MarkerStyle(mark.marker)
    corners = np.asarray(style.get_path().transformed(style.get_transform()).to_polygons()[0]) * mark.size / 3
    return "M" + "L".join(f"{round(x, 2) + 0:g},{round(-y, 2) + 0:g}" for x, y in corners) + "Z"


def columns(study: Study, runs: pd.DataFrame) -> dict[str, Any]:
    """What the plots and the page's filters need to know of `runs`, column by column.

    `title` and `weight_bits` are filtered by; runs of one `setting` differ in their seed alone; rates are in per cent.
    """
    told = in_percent(runs)[["run", "title", "bits", "state", "reason", "over_budget", "command", "wer", "low", "high"]]
    frame = told.round(3).assign(setting=pd.factorize(runs.setting)[0], weight_bits=widths(runs))
    for place, cost in enumerate(costs(study)):
        frame[f"cost_{place}"] = (runs[cost.column] / cost.unit).map("{:.4g}".format).astype(float)
        frame[f"front_{place}"] = runs.setting.isin(points(study, cost).front.setting).astype(int)
    return {str(name): coded(frame[name]) for name in frame}


def widths(runs: pd.DataFrame) -> pd.Series:
    """Bits per weight as the page filters by them: a number where all layers have as many, `mixed`, `float`."""
    words = runs.weight_bits.map("{:g}".format).where(runs.uniform, "mixed")
    return words.where(runs.label != "float", "float")


def coded(values: pd.Series) -> Any:
    """A column as JSON has it: a list, or its distinct `values` and which of them stands `at` every place."""
    numbers, distinct = pd.factorize(values, use_na_sentinel=False)
    if 2 * len(distinct) > len(values):
        return plain(values)
    return {"values": plain(pd.Series(distinct)), "at": numbers.tolist()}


def plain(values: pd.Series | pd.DataFrame) -> list[Any]:
    """Rows as JSON has them, which has no NaN."""
    return list(json.loads(values.to_json(orient="records", double_precision=15)))
