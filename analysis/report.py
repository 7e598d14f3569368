"""From the records of a study to `reports/NAME/`: tables, figures and the page. `python -m analysis.report --help`."""

import json
import sys
from pathlib import Path

from jsonargparse import auto_cli

from analysis.allocation import allocation
from analysis.compare import comparison
from analysis.costs import costs
from analysis.page import page
from analysis.pareto import best
from analysis.runs_table import runs_table
from analysis.study import RECORDS, Study, load_study
from analysis.style import Picture
from analysis.summary import facts, sentence
from analysis.tables import Table, to_csv, to_latex, to_markdown
from analysis.text import counted
from analysis.tradeoff import tradeoff
from analysis.widths import series, widths_table
from analysis.widths_plot import widths_plot
from qstudy.errors import UserError
from qstudy.files import write_text

WRITERS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}


def report(
    study: Path, out: Path | None = None, also: Path | list[Path] | None = None, split: str | None = None
) -> None:
    """Rebuild tables, figures and the HTML page of a study from its run records.

    Args:
        study: folder of the study, such as studies/digits, or a report written earlier.
        out: folder to write to; reports/NAME by default.
        also: another study, for a table that compares data sets; several: --also+ A --also+ B.
        split: the set whose word error rate is reported; by default test if there is one, else dev.
    """
    main = load_study(study, split)
    others = [load_study(folder) for folder in ([also] if isinstance(also, Path) else also or [])]
    out = out or Path("reports") / main.name
    tables = _tables(main, others)
    pictures = _pictures(main)
    written = {path for table in tables for path in _write(table, out)}
    written |= {path for picture in pictures for path in picture.save(out)}
    write_text(out / "index.html", page(main, pictures, tables))
    write_text(out / RECORDS, _records(main))
    _remove_stale(out, written)
    _say(main, out)


def _tables(study: Study, others: list[Study]) -> list[Table]:
    found = series(study)
    optional = [widths_table(study, found) if found else None, comparison([study, *others])]
    return [runs_table(study), *(table for table in optional if table)]


def _pictures(study: Study) -> list[Picture]:
    found = [*(tradeoff(study, cost) for cost in costs(study)), widths_plot(study, series(study)), allocation(study)]
    return [picture for picture in found if picture]


def _write(table: Table, out: Path) -> list[Path]:
    paths = []
    for ending, writer in WRITERS.items():
        paths.append(out / f"{table.name}.{ending}")
        write_text(paths[-1], writer(table))
    return paths


def _records(study: Study) -> str:
    """The records that were read, one per line; paths under the current folder become relative."""
    lines = [json.dumps(run.raw, ensure_ascii=False) for run in study.runs if run.raw]
    return "\n".join(lines).replace(f"{Path.cwd()}/", "") + "\n"


def _remove_stale(out: Path, written: set[Path]) -> None:
    """Drop tables and figures of an earlier report that this one does not have: they would tell of other runs."""
    names = ("wer_vs_*", "wer_by_width.*", "bit_allocation.*", "comparison.*")
    for path in {path for name in names for path in out.glob(name)} - written:
        path.unlink()


def _say(study: Study, out: Path) -> None:
    for problem in study.problems:
        print(f"warning: left out {problem.source}: {problem.message}", file=sys.stderr)
    print(f"{study.name}: {sentence(study)}")
    for fact in facts(study):
        print(f"  {fact.name}: {fact.value} ({fact.note})")
    if best(study) is None:
        print("  No trained trial is within the budgets.")
    if study.problems:
        print(f"  {counted(len(study.problems), 'record')} could not be read; the page lists them.")
    print(f"Open {out / 'index.html'}; tables are in {out}/*.csv, *.md, *.tex.")


def main() -> None:
    """Run `report` from the command line; a user's error ends with one line and exit code 2."""
    try:
        auto_cli(report)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
