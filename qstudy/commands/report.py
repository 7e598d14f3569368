"""The command `qstudy report`."""

import sys
from pathlib import Path
from shlex import quote
from typing import TypeVar

from analysis.figures import FIGURES
from analysis.folder import named, write_report
from analysis.measures import best
from analysis.report import contents_of, require_whole
from analysis.section import folder_name
from analysis.study import Study, load_studies
from analysis.summary import facts, sentence
from analysis.tables import TABLES
from analysis.text import counted, one_line
from qstudy.named import imported

T = TypeVar("T")


def report(
    study: list[Path],
    out: Path | None = None,
    split: str | None = None,
    table: str | list[str] | None = None,
    figure: str | list[str] | None = None,
    alone: bool = False,
) -> None:
    """Rebuild tables, figures and the HTML page of one study or several from their run records.

    Args:
        study: Folder of the study, such as studies/digits, or a report written earlier; of several studies their fronts
            are drawn together, and their settings and claims side by side.
        out: Folder to write to; reports/NAME by default.
        split: The set whose word error rate is reported; by default test if there is one, else dev.
        table: A table of your own besides, by its import path (my_tables.smallest); several: --table+ A --table+ B.
        figure: A figure of your own, likewise.
        alone: Leave out the tables and figures that every report has.
    """
    figures = [*(() if alone else FIGURES), *(imported(name, (), "figure") for name in _several(figure))]
    makers = [*(() if alone else TABLES), *(imported(name, (), "table") for name in _several(table))]
    studies = load_studies(*study, split=split)
    out = out or Path("reports") / folder_name(studies)
    require_whole(out, study, studies)
    again = _command(out, split, _several(table), _several(figure), alone)
    write_report(out, contents_of(studies, figures, makers, again, shared=not alone))
    for one in studies:
        _print(one)
    print(f"Open {out / 'index.html'}; tables are in {out}/*.csv, *.md, *.tex.")


def _command(out: Path, split: str | None, tables: list[str], figures: list[str], alone: bool) -> str:
    """What makes a report anew from the records in its folder."""
    folder = named(out)
    options = [*["--alone"] * alone, *([] if split is None else [f"--split {quote(split)}"])]
    options += [
        f"--{name}+ {quote(one)}" for name, some in {"table": tables, "figure": figures}.items() for one in some
    ]
    return " ".join([f"qstudy report {folder} --out {folder}", *options])


def _several(given: T | list[T] | None) -> list[T]:
    """What an option was given, once or several times."""
    return given if isinstance(given, list) else [] if given is None else [given]


def _print(study: Study) -> None:
    for problem in study.problems:
        print(one_line(f"warning: left out {problem.source}: {problem.message}"), file=sys.stderr)
    print(f"{study.name}: {sentence(study)}")
    for fact in facts(study):
        print(f"  {fact.name}: {fact.value} ({fact.note})")
    if best(study) is None:
        print("  No trained trial is within the budgets.")
    if study.problems:
        print(f"  {counted(len(study.problems), 'record')} could not be read; the page lists them.")
