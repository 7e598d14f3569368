"""The trade-off as the page shows it: a Vega-Lite specification, which the reader's browser draws and answers to."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.markers import MarkerStyle

from analysis.figures.axes import Scale
from analysis.figures.costs import costs
from analysis.figures.points import Points, points
from analysis.figures.style import GRID, INK, MUTED, ROLES, Mark, marks
from analysis.study import Study

Spec = dict[str, Any]

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif'
"""The page's, so that Vega leaves as much room for words as they take."""
AXIS: Spec = {
    "labelColor": ROLES[INK],
    "titleColor": ROLES[INK],
    "titleFontWeight": "normal",
    "titleFontSize": 12,
    "labelFontSize": 11,
    "labelOverlap": "greedy",
    "gridColor": ROLES[GRID],
    "domainColor": ROLES[MUTED],
    "tickColor": ROLES[MUTED],
}
LEGEND: Spec = {
    "orient": "top",
    "columns": 6,
    "title": None,
    "labelColor": ROLES[INK],
    "labelFontSize": 11,
    "labelLimit": 240,
    "labelOffset": 7,
    "symbolFillColor": "transparent",
    "symbolOpacity": 1,
    "symbolStrokeWidth": 1.5,
}
HEIGHT = 380
STAIRS: Spec = {"type": "line", "interpolate": "step-after", "color": ROLES[INK], "strokeWidth": 1.2}
WHISKER: Spec = {"type": "rule", "opacity": 0.6, "clip": True}
CROSS: Spec = {"type": "point", "shape": "M-1,-1L1,1M-1,1L1,-1", "color": ROLES[MUTED], "cursor": "pointer"}
BREAK: Spec = {"type": "text", "text": "//", "fontSize": 14, "color": ROLES[MUTED]}
RULE: Spec = {"type": "rule", "color": ROLES[INK]}
POINT: Spec = {"type": "point", "opacity": 1, "size": 90, "strokeWidth": 1.5, "cursor": "pointer"}
SHOWN = "(policy === null || datum.title === policy) && (bits === null || datum.weight_bits === bits)"
"""Which runs the page's two filters leave."""


def explorer(shown: Points, place: int) -> Spec:
    """Specify the plot over the data set `runs`, whose columns `cost_PLACE`, `front_PLACE`, ... `columns` gives."""
    x = {"field": "x", **_axis(shown.x, shown.cost.axis)}
    y = {"field": "wer", **_axis(shown.y, f"Word error rate on {shown.study.split} (%)")}
    least = f"max(datum.low, {shown.y.limits[0]!r})"  # zero has no logarithm
    place_x = f"min(datum.cost_{place}, {shown.x.edge!r})" if shown.x.far else f"datum.cost_{place}"
    return {
        "width": "container",
        "height": HEIGHT,
        "background": "transparent",
        "config": {"font": FONT, "view": {"stroke": None}, "axis": AXIS, "legend": LEGEND},
        "data": {"name": "runs"},
        "transform": [
            {"filter": f"datum.cost_{place} > 0"},
            {"calculate": place_x, "as": "x"},
            {"calculate": least, "as": "least"},
        ],
        "params": [{"name": "policy", "value": None}, {"name": "bits", "value": None}],
        "layer": [*_given(shown, x, y), *_runs(shown, place, x, y)],
    }


def _axis(scale: Scale, title: str) -> Spec:
    words = "format(datum.value, '.6~g')"
    if scale.far:
        words = f"datum.value === {scale.edge!r} ? '{scale.far}' : {words}"
    look = {"values": scale.ticks, "labelExpr": words}
    kind = {"type": scale.kind, "domain": scale.limits, "constant": scale.smallest, "nice": False}
    return {"type": "quantitative", "scale": kind, "axis": look, "title": title}


def _given(shown: Points, x: Spec, y: Spec) -> list[Spec]:
    """The budget, and the float baseline with its interval."""
    found = []
    if shown.baseline is not None:
        one = shown.baseline
        rates = {"values": [{"wer": one.wer, "low": max(one.low, shown.y.limits[0]), "high": one.high}]}
        band = {"type": "rect", "color": ROLES[MUTED], "opacity": 0.13, "clip": True}
        ends = {"y": {**y, "field": "low"}, "y2": {"field": "high"}}
        found += [{"data": rates, "mark": band, "encoding": ends}] * bool(one.low == one.low)
        found.append({"data": rates, "mark": {**RULE, "strokeDash": [1, 2]}, "encoding": {"y": y}})
    if shown.budget is not None:
        limit = {"values": [{x["field"]: shown.budget}]}
        found.append({"data": limit, "mark": {**RULE, "strokeDash": [5, 3]}, "encoding": {"x": x}})
    if shown.x.far:
        gap = {"values": [{"x": shown.x.gap}]}
        found.append({"data": gap, "mark": BREAK, "encoding": {"x": x, "y": {"value": HEIGHT}}})
    return found


def _runs(shown: Points, place: int, x: Spec, y: Spec) -> list[Spec]:
    """The front, and what the filters leave: whiskers, dominated trials, those on the front, candidates over budget."""
    front, rated = f"datum.front_{place}", "datum.wer !== null"
    solid = f"({front} || datum.title === 'float baseline')"
    methods = marks(shown.rated.method)
    looks = {title: methods[name] for title, name in shown.rated[["title", "method"]].itertuples(index=False)}
    color = _by_title(looks, [ROLES.get(mark.color, mark.color) for mark in looks.values()])
    shape = _by_title(looks, [outline(mark) for mark in looks.values()])
    points = {"x": x, "y": y, "color": color, "shape": shape, "tooltip": _tooltip(shown, place, "rate")}
    whisker = {"x": x, "y": {**y, "field": "least"}, "y2": {"field": "high"}, "color": color}
    refused = {"x": x, "y": {"value": HEIGHT - 8}, "tooltip": _tooltip(shown, place, "reason")}
    stairs = {"values": shown.front[["cost", "wer"]].to_dict("records")}
    return [
        {"data": stairs, "mark": STAIRS, "encoding": {"x": {**x, "field": "cost"}, "y": y}},
        _layer([SHOWN, rated, "true" if shown.few else front], WHISKER, whisker),
        _layer([SHOWN, rated, f"!{solid}"], {**POINT, "filled": False}, points),
        _layer([SHOWN, rated, solid], {**POINT, "filled": True}, points),
        _layer([SHOWN, "datum.over_budget"], CROSS, refused),
    ]


def _layer(tests: list[str], mark: Spec, encoding: Spec) -> Spec:
    return {"transform": [{"filter": test} for test in tests], "mark": mark, "encoding": encoding}


def _by_title(looks: Mapping[str, Mark], values: list[str]) -> Spec:
    return {"field": "title", "type": "nominal", "scale": {"domain": list(looks), "range": values}}


def _tooltip(shown: Points, place: int, said: str) -> list[Spec]:
    names = {"run": "Run", "title": "Policy", "bits": "Bits", said: "WER (%)" if said == "rate" else "Pruned"}
    words = [{"field": name, "title": title} for name, title in names.items()]
    cost = {"field": f"cost_{place}", "title": shown.cost.axis, "format": "~g"}
    return [*words, cost, {"field": "command", "title": "Command"}]


def columns(study: Study, runs: pd.DataFrame) -> dict[str, Any]:
    """What the plots and the page's filters need to know of `runs`, column by column.

    `title` and `weight_bits` are filtered by; `rate` is a word error rate with its interval, for reading.
    """
    wer, low, high = (100 * runs[name] for name in ("wer", "low", "high"))
    two = "{:.2f}".format
    ends = (" [" + low.map(two) + ", " + high.map(two) + "]").where(low.notna(), "")
    rates = {"wer": wer.round(3), "low": low.round(3), "high": high.round(3), "rate": wer.map(two) + ends}
    told = runs[["run", "title", "bits", "state", "reason", "over_budget", "command"]]
    frame = told.assign(weight_bits=widths(runs), **rates)
    for place, cost in enumerate(costs(study)):
        frame[f"cost_{place}"] = (runs[cost.column] / cost.unit).map("{:.4g}".format).astype(float)
        frame[f"front_{place}"] = runs.setting.isin(points(study, cost).front.setting).astype(int)
    return {str(name): coded(frame[name]) for name in frame}


def coded(values: pd.Series) -> Any:
    """A column as JSON has it: a list, or its distinct `values` and which of them stands `at` every place."""
    numbers, distinct = pd.factorize(values, use_na_sentinel=False)
    plain = [None if one != one else one for one in distinct.tolist()]
    if 2 * len(plain) > len(values):
        return [plain[number] for number in numbers]
    return {"values": plain, "at": numbers.tolist()}


def widths(runs: pd.DataFrame) -> pd.Series:
    """Bits per weight as the page filters by them: a number where all layers have as many, `mixed`, `float`."""
    words = runs.weight_bits.map("{:g}".format).where(runs.uniform, "mixed")
    return words.where(runs.label != "float", "float")


def outline(mark: Mark) -> str:
    """A mark as the SVG path, about 2 units across, that Vega draws points with."""
    style = MarkerStyle(mark.marker)
    corners = np.asarray(style.get_path().transformed(style.get_transform()).to_polygons()[0]) * mark.size / 3
    return "M" + "L".join(f"{round(x, 2) + 0:g},{round(-y, 2) + 0:g}" for x, y in corners) + "Z"
