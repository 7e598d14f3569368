"""One study's part of a page: its figures, its tables, and what the page's script knows of its runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import pandas as pd

from analysis.configs import flat
from analysis.figures import FIGURES, Figures, pictures
from analysis.figures.interactive import coded, columns
from analysis.figures.points import costs
from analysis.figures.style import Picture
from analysis.measures import best, front, smallest_near_float
from analysis.records import parsed
from analysis.study import Study
from analysis.tables import TABLES, Table, Tables
from analysis.tables.runs import unfinished
from analysis.tables.table import MOST, evenly, thinned

MANY = 40  # rows: more than this are shown on demand


@dataclass(frozen=True)
class Section:
    """A study and what is shown of it."""

    name: str
    """Short name of the study where there are several, and how their files begin; else empty."""
    study: Study
    pictures: list[Picture]
    tables: list[Table]
    unfinished: Table | None
    """Runs that came to no end, and why: on the page alone."""
    data: dict[str, Any]
    """What the page's script knows, as JSON: runs column by column, their settings, and the plots of them."""
    note: str
    """That the page shows only some of its runs; else empty."""


def sections(studies: Sequence[Study], figures: Figures = FIGURES, tables: Tables = TABLES) -> list[Section]:
    """One section for each study, of these figures and tables."""
    several = len(studies) > 1
    return [
        _section(study, name if several else "", figures, tables)
        for study, name in zip(studies, names(studies), strict=True)
    ]


def names(studies: Sequence[Study]) -> list[str]:
    """Short names: what follows the beginning that all have in common."""
    return [study.name.removeprefix(f"{_common(studies)}-") for study in studies]


def title(studies: Sequence[Study]) -> str:
    """What the studies are called together: the beginning that all names have in common, else all names."""
    return _common(studies) or ", ".join(study.name for study in studies)


def folder_name(studies: Sequence[Study]) -> str:
    """What their report's folder is called."""
    return title(studies).replace(", ", "+")


def _common(studies: Sequence[Study]) -> str:
    """The words before a dash that the names of several studies begin with: `policies`."""
    if len(studies) < 2:
        return ""
    words = zip(*(study.name.split("-")[:-1] for study in studies), strict=False)
    return "-".join(same[0] for same in takewhile(lambda same: len(set(same)) == 1, words))


def _section(study: Study, name: str, figures: Figures, tables: Tables) -> Section:
    prefix = f"{name}_" if name else ""
    shown = [replace(one, name=f"{prefix}{one.name}") for one in pictures(study, figures)]
    runs = on_page(study)
    some = f"Plots that move and tables show {len(runs):,} of {len(study.runs):,} runs: baselines, those on a front,"
    note = f"{some} and others at even distances; the files have all." if len(runs) < len(study.runs) else ""
    made = [_shown(table, prefix, runs) for make in tables if (table := make(study))]
    stopped = unfinished(study)
    return Section(name, study, shown, made, stopped and _shown(stopped, prefix, runs), _data(study, shown, runs), note)


def on_page(study: Study) -> pd.DataFrame:
    """The runs that a page shows: all, or of very many the baselines, the best, and others at even distances, half of
    them or more finished ones."""
    runs, chosen = study.runs, [one.setting for one in (best(study), smallest_near_float(study)) if one is not None]
    if len(runs) <= MOST:
        return runs
    for cost in costs(study):
        chosen += list(front(study.settings, cost.column).setting)
    telling = runs.is_baseline | runs.setting.isin(chosen)
    finished = evenly(telling[study.finished.index], MOST // 2)
    return runs[evenly(telling | finished.reindex(runs.index, fill_value=False))]


def _shown(table: Table, prefix: str, runs: pd.DataFrame) -> Table:
    known = table.frame.run.isin(runs.run) if "run" in table.frame else None
    return thinned(replace(table, name=f"{prefix}{table.name}", folded=len(table.frame) > MANY), known)


def _data(study: Study, shown: Sequence[Picture], runs: pd.DataFrame) -> dict[str, Any]:
    told = [flat(parsed(one).get("config")) for one in runs.record]
    known = [config for config in told if config]
    shared = {
        name: value
        for name, value in (known[0] if known else {}).items()
        if all(name in config and config[name] == value for config in known)
    }
    others = sorted({name for config in known for name in config} - shared.keys())
    return {
        "columns": columns(study, runs),
        "settings": {
            name: coded(pd.Series([config.get(name) for config in told], runs.index, object)) for name in others
        },
        "common": shared,
        "plots": [{"figure": one.name, **one.plot} for one in shown if one.plot],
    }
