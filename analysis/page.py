"""The one self-contained HTML page: no external resource, one small script, readable in the dark and in print."""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.bits import describe
from analysis.claims import summaries
from analysis.provenance import provenance
from analysis.records import Run
from analysis.section import Section, folder_name, names, title
from analysis.study import Study
from analysis.style import inline_svg
from analysis.summary import facts, sentence
from analysis.tables import Cell, Column, Table
from analysis.text import DASH, number, size
from analysis.transcripts import sentences

TEMPLATES = Path(__file__).parent / "templates"


def page(shown: Sequence[Section], shared: Sequence[Table]) -> str:
    """Render the page.

    Args:
        shown: the studies with their tables and saved figures, in the order of the page.
        shared: tables over all studies; claims first, if there are any.
    """
    studies = [section.study for section in shown]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = [picture for section in shown for picture in section.pictures]
    tables = [*shared, *(table for section in shown for table in section.tables)]
    return environment.get_template("page.html").render(
        title=title(studies),
        sections=shown,
        shared=shared,
        claims=summaries(list(zip(names(studies), studies, strict=True))),
        facts=facts,
        sentence=sentence,
        sentences=sentences,
        unfinished=unfinished_table,
        svgs={picture.name: Markup(inline_svg(picture)) for picture in pictures},
        figure_numbers={picture.name: number for number, picture in enumerate(pictures, start=1)},
        table_numbers={table.name: number for number, table in enumerate(tables, start=1)},
        provenance={section.name: provenance(section.study, rebuild="") for section in shown},
        origin=provenance(*studies, rebuild=rebuild(studies)),
        folder=folder_name(studies),
        records=sum(study.records for study in studies),
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "sort.js").read_text(encoding="utf-8")),
    )


def rebuild(studies: Sequence[Study]) -> str:
    """The command that makes the page from the studies."""
    first, *others = [quote(f"studies/{study.name}") for study in studies]
    plus = "+" if len(others) > 1 else ""
    also = "".join(f" --also{plus} {folder}" for folder in others)
    return f"qstudy report {first}{also} --out {quote(f'reports/{folder_name(studies)}')}"


def unfinished_table(study: Study) -> Table | None:
    """Pruned and failed runs, and what stopped them; None if there are none."""
    if not study.unfinished:
        return None
    columns = (
        Column("run", "Run"),
        Column("policy", "Policy"),
        Column("bits", "Bits"),
        Column("size", "Size", "r"),
        Column("latency", "Latency (ms)", "r"),
        Column("state", "State"),
        Column("reason", "Reason"),
    )
    rows = tuple(_unfinished(run, study) for run in study.unfinished)
    return Table("unfinished", "Pruned and failed runs", "", columns, rows)


def _unfinished(run: Run, study: Study) -> tuple[Cell, ...]:
    latency = next((run.latency_ms[name] for name in study.accelerators if name in run.latency_ms), None)
    missing = f"no word error rate on {study.split}" if run.state == "complete" else "no reason recorded"
    cells = [Cell(text, text) for text in (run.name, run.method, describe(run) if run.widths else DASH)]
    measured = [Cell(size(run.size_bytes), run.size_bytes), Cell(number(latency), latency)]
    return (*cells, *measured, Cell(run.state, run.state), Cell(run.reason or missing, run.reason or missing))
