"""One study's part of a page: its figures and its tables."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from analysis.allocation import allocation
from analysis.costs import costs
from analysis.quantizers import quantizers_table
from analysis.runs_table import runs_table
from analysis.study import Study
from analysis.style import Picture
from analysis.tables import Table
from analysis.tradeoff import tradeoff
from analysis.widths import rows, series
from analysis.widths_plot import widths_plot
from analysis.widths_table import costs_table, widths_table

MANY = 40  # runs: more than this are shown on demand


@dataclass(frozen=True)
class Section:
    """A study and what is shown of it."""

    name: str
    """Short name of the study where there are several, and how their files begin; else empty."""
    study: Study
    pictures: list[Picture]
    tables: list[Table]


def sections(studies: Sequence[Study]) -> list[Section]:
    """One section for each study."""
    return [
        _section(study, name if len(studies) > 1 else "") for study, name in zip(studies, names(studies), strict=True)
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


def _section(study: Study, name: str) -> Section:
    found, lines = series(study), rows(study)
    pictures = [widths_plot(study, found), *(tradeoff(study, cost) for cost in costs(study)), allocation(study)]
    tables = [widths_table(study, lines), costs_table(study, lines), quantizers_table(study)] if found else []
    tables.append(replace(runs_table(study), folded=len(study.runs) > MANY))
    prefix = f"{name}_" if name else ""
    kept = [replace(table, name=f"{prefix}{table.name}") for table in tables if table]
    return Section(name, study, [replace(p, name=f"{prefix}{p.name}") for p in pictures if p], kept)
