"""What a report consists of: tables, figures, the page, and the records that all of it was made from."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analysis.figures import overlaid
from analysis.folder import Content
from analysis.latex import to_latex
from analysis.page import page
from analysis.records import RECORDS, read_folder, unpacked
from analysis.section import MANY, names, sections
from analysis.study import Study
from analysis.tables import Table
from analysis.tables.claims import claims
from analysis.tables.comparison import comparison
from analysis.tables.table import thinned
from analysis.text import counted
from analysis.write import to_csv, to_markdown
from qstudy.errors import UserError

WRITERS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}


def contents_of(
    studies: list[Study],
    figures: Sequence[Callable[..., Any]],
    makers: Sequence[Callable[..., Any]],
    command: str,
    shared: bool = True,
) -> dict[str, Content]:
    """The files of a report, by name.

    Args:
        studies: what it tells of.
        figures: functions from a study to figures (`analysis.figures.FIGURES`).
        makers: functions from a study to a table (`analysis.tables.TABLES`).
        command: what makes it anew from its records, as the page tells it.
        shared: whether there are claims, and comparisons of the studies, too.
    """
    shown, common = sections(studies, figures, makers), _shared(studies) if shared else []
    together = overlaid(list(zip(names(studies), studies, strict=True))) if shared else []
    tables = [*common, *(table for section in shown for table in section.tables)]
    contents = {
        f"{table.name}.{ending}": writer(table).encode() for table in tables for ending, writer in WRITERS.items()
    }
    for picture in [*(picture for section in shown for picture in section.pictures), *together]:
        contents |= picture.drawn()
    contents["index.html"] = page(shown, common, together, contents, command).encode()
    return {**contents, RECORDS: Records(studies)}


def require_whole(out: Path, sources: list[Path], studies: list[Study]) -> None:
    """Raise UserError if records would be lost with the report that is replaced: those it was made from must all have
    been understood, and those that another one was made from must be among these."""
    if out.resolve() in {source.resolve() for source in sources}:
        lost = [problem for one in studies for problem in one.problems if problem.source.startswith(RECORDS)]
        said = f"{lost[0].source} would be lost ({lost[0].message}); mend it" if lost else ""
    else:
        found = {(study.name, run) for study in studies for run in study.runs.run}
        gone = [f"{study} {run}" for study, run in _kept_in(out) if (study, run) not in found]
        where = " and ".join(map(str, sources))
        said = f"{counted(len(gone), 'run')} in its {RECORDS} would be lost, which {where} lacks" if gone else ""
        said += f" (the first: {gone[0]}); move that file elsewhere" if gone else ""
    if said:
        raise UserError(f"{out}: {said}, or name another folder by --out.")


def _kept_in(report: Path) -> Iterator[tuple[str | None, str]]:
    """Study and name of the runs that a report keeps the records of."""
    if (report / RECORDS).is_file():
        for _, record, _ in read_folder(report, []):
            yield record.study, record.run


def _shared(studies: list[Study]) -> list[Table]:
    across = comparison(studies)
    found = (claims(list(zip(names(studies), studies, strict=True))), across)
    return [thinned(replace(table, folded=table is across and len(table.frame) > MANY)) for table in found if table]


@dataclass(frozen=True)
class Records:
    """The records that were read, one per line; paths under the current folder become relative."""

    studies: list[Study]

    def __iter__(self) -> Iterator[bytes]:
        here = f"{Path.cwd()}/"
        for study in self.studies:
            for record in filter(None, study.runs.record):
                yield f"{_named(unpacked(record), study.name).replace(here, '')}\n".encode()


def _named(record: str, study: str) -> str:
    """A record that says of which study it is: a run on its own was shown under the name of its folder, which is not
    that of a report."""
    if f'"study": {json.dumps(study, ensure_ascii=False)}' in record:  # the usual case, without reading all of it
        return record
    values = json.loads(record)
    return record if values.get("study") else json.dumps({**values, "study": study})
