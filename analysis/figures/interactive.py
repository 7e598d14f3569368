"""What the page's script needs for its plots: `templates/plot.js` draws them, with hover and filters."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.markers import MarkerStyle

from analysis.figures.axes import Scale
from analysis.figures.points import Points, costs, points
from analysis.figures.style import ROLES, Mark, marks
from analysis.study import Study


def plot(shown: Points, place: int) -> dict[str, Any]:
    """One plot of the runs, whose columns `cost_PLACE` and `front_PLACE` stand in `columns`."""
    methods = marks(shown.rated.method)
    looks = {title: methods[name] for title, name in shown.rated[["title", "method"]].itertuples(index=False)}
    one = shown.baseline
    return {
        "place": place,
        "x": _axis(shown.x, shown.cost.axis),
        "y": _axis(shown.y, f"Word error rate on {shown.study.split} (%)"),
        "colors": {title: ROLES.get(mark.color, mark.color) for title, mark in looks.items()},
        "shapes": {title: outline(mark) for title, mark in looks.items()},
        "front": shown.front[["cost", "wer"]].to_dict("records"),
        "baseline": None if one is None else {name: none(one[name]) for name in ("wer", "low", "high")},
        "budget": shown.budget,
        "few": shown.few,
    }


def _axis(scale: Scale, title: str) -> dict[str, Any]:
    far = {"edge": scale.edge, "gap": scale.gap} if scale.far else {}
    words = [scale.word(tick) for tick in scale.ticks]
    return {
        "title": title,
        "kind": scale.kind,
        "domain": scale.limits,
        "smallest": scale.smallest,
        "ticks": scale.ticks,
        "words": words,
        **far,
    }


def outline(mark: Mark) -> str:
    """A mark as the SVG path, about 2 units across, that Vega draws points with."""
    style = MarkerStyle(mark.marker)
    corners = np.asarray(style.get_path().transformed(style.get_transform()).to_polygons()[0]) * mark.size / 3
    return "M" + "L".join(f"{round(x, 2) + 0:g},{round(-y, 2) + 0:g}" for x, y in corners) + "Z"


def columns(study: Study, runs: pd.DataFrame) -> dict[str, Any]:
    """What the plots and the page's filters need to know of `runs`, column by column.

    `title` and `weight_bits` are filtered by; `rate` is a word error rate with its interval, for reading;
    runs of one `setting` differ in their seed alone.
    """
    wer, low, high = (100 * runs[name] for name in ("wer", "low", "high"))
    two = "{:.2f}".format
    ends = (" [" + low.map(two) + ", " + high.map(two) + "]").where(low.notna(), "")
    rates = {"wer": wer.round(3), "low": low.round(3), "high": high.round(3), "rate": wer.map(two) + ends}
    told = runs[["run", "title", "bits", "state", "reason", "over_budget", "command"]]
    frame = told.assign(setting=pd.factorize(runs.setting)[0], weight_bits=widths(runs), **rates)
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
    plain = [none(one) for one in distinct.tolist()]
    if 2 * len(plain) > len(values):
        return [plain[number] for number in numbers]
    return {"values": plain, "at": numbers.tolist()}


def none(value: Any) -> Any:
    """JSON has no NaN."""
    return None if value != value else value
