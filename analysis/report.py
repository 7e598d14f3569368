"""From the records of a study to `reports/NAME/`: tables, figures and the page."""

import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TypeVar

from analysis.figures import FIGURES
from analysis.folder import write_report
from analysis.latex import to_latex
from analysis.measures import best
from analysis.page import page
from analysis.records import RECORDS, unpacked
from analysis.section import MANY, folder_name, names, sections
from analysis.study import Study, load_studies
from analysis.summary import facts, sentence
from analysis.tables import TABLES, Table
from analysis.tables.claims import claims
from analysis.tables.comparison import comparison
from analysis.text import counted, one_line
from analysis.write import to_csv, to_markdown
from qstudy.errors import UserError
from qstudy.named import imported

T = TypeVar("T")
WRITERS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}


def report(
    study: Path,
    out: Path | None = None,
    also: Path | list[Path] | None = None,
    split: str | None = None,
    table: str | list[str] | None = None,
    figure: str | list[str] | None = None,
) -> None:
    """Rebuild tables, figures and the HTML page of one study or several from their run records.

    Args:
        study: folder of the study, such as studies/digits, or a report written earlier.
        out: folder to write to; reports/NAME by default.
        also: another study, shown on the same page and compared with the first; several: --also+ A --also+ B.
        split: the set whose word error rate is reported; by default test if there is one, else dev.
        table: a table of your own besides, by its import path (my_tables.smallest); several: --table+ A --table+ B.
        figure: a figure of your own, likewise.
    """
    folders = [study, *_several(also)]
    figures = [*FIGURES, *(imported(name, (), "figure") for name in _several(figure))]
    makers = [*TABLES, *(imported(name, (), "table") for name in _several(table))]
    studies = load_studies(*folders, split=split)
    out = out or Path("reports") / folder_name(studies)
    _require_whole(out, folders, studies)
    shown, shared = sections(studies, figures, makers), _shared(studies)
    tables = [*shared, *(table for section in shown for table in section.tables)]
    contents = {
        f"{table.name}.{ending}": writer(table).encode() for table in tables for ending, writer in WRITERS.items()
    }
    for section in shown:
        contents |= {name: content for picture in section.pictures for name, content in picture.drawn().items()}
    contents["index.html"] = page(shown, shared, contents).encode()
    contents[RECORDS] = _records(studies)
    write_report(out, contents)
    for one in studies:
        _say(one)
    print(f"Open {out / 'index.html'}; tables are in {out}/*.csv, *.md, *.tex.")


def _several(given: T | list[T] | None) -> list[T]:
    """What an option was given, once or several times."""
    return given if isinstance(given, list) else [] if given is None else [given]


def _require_whole(out: Path, sources: list[Path], studies: list[Study]) -> None:
    """A report that replaces the records it was made from must have understood them all."""
    lost = [problem for one in studies for problem in one.problems if problem.source.startswith(RECORDS)]
    if lost and out.resolve() in {source.resolve() for source in sources}:
        raise UserError(
            f"{out}: {lost[0].source} would be lost ({lost[0].message}); mend it, or name another folder by --out."
        )


def _shared(studies: list[Study]) -> list[Table]:
    across = comparison(studies)
    found = (claims(list(zip(names(studies), studies, strict=True))), across)
    return [replace(table, folded=table is across and len(table.frame) > MANY) for table in found if table]


def _records(studies: list[Study]) -> bytes:
    """The records that were read, one per line; paths under the current folder become relative."""
    here, file = f"{Path.cwd()}/", BytesIO()  # thousands of records are there once, not three times
    for record in (record for study in studies for record in study.runs.record if record):
        file.write(f"{unpacked(record).replace(here, '')}\n".encode())
    return file.getvalue()


def _say(study: Study) -> None:
    for problem in study.problems:
        print(one_line(f"warning: left out {problem.source}: {problem.message}"), file=sys.stderr)
    print(f"{study.name}: {sentence(study)}")
    for fact in facts(study):
        print(f"  {fact.name}: {fact.value} ({fact.note})")
    if best(study) is None:
        print("  No trained trial is within the budgets.")
    if study.problems:
        print(f"  {counted(len(study.problems), 'record')} could not be read; the page lists them.")
