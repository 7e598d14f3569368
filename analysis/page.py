"""The one self-contained HTML page: no external resource, one small script, readable in the dark and in print."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.bits import describe
from analysis.provenance import provenance
from analysis.records import Run
from analysis.study import Study
from analysis.style import Picture, inline_svg
from analysis.summary import facts, sentence
from analysis.tables import Cell, Column, Table
from analysis.text import DASH, number, size
from analysis.transcripts import sentences

TEMPLATES = Path(__file__).parent / "templates"


def page(study: Study, pictures: Sequence[Picture], tables: Sequence[Table]) -> str:
    """Render the page.

    Args:
        study: the runs.
        pictures: saved figures, in the order of the page.
        tables: tables to print; the first is the table of runs.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        study=study,
        facts=facts(study),
        sentence=sentence(study),
        pictures=pictures,
        svgs={picture.name: Markup(inline_svg(picture)) for picture in pictures},
        tables=tables,
        unfinished=unfinished_table(study),
        sentences=sentences(study),
        provenance=provenance(study),
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "sort.js").read_text(encoding="utf-8")),
    )


def unfinished_table(study: Study) -> Table | None:
    """Pruned and failed runs, and what stopped them; None if there are none."""
    if not study.unfinished:
        return None
    columns = (
        Column("run", "Run"), Column("policy", "Policy"), Column("bits", "Bits"), Column("size", "Size", "r"),
        Column("latency", "Latency (ms)", "r"), Column("state", "State"), Column("reason", "Reason"),
    )  # fmt: skip
    rows = tuple(_unfinished(run, study) for run in study.unfinished)
    return Table("unfinished", "Pruned and failed runs", "", columns, rows)


def _unfinished(run: Run, study: Study) -> tuple[Cell, ...]:
    latency = next((run.latency_ms[name] for name in study.accelerators if name in run.latency_ms), None)
    missing = f"no word error rate on {study.split}" if run.state == "complete" else "no reason recorded"
    cells = [Cell(text, text) for text in (run.name, run.policy, describe(run) if run.widths else DASH)]
    measured = [Cell(size(run.size_bytes), run.size_bytes), Cell(number(latency), latency)]
    return (*cells, *measured, Cell(run.state, run.state), Cell(run.reason or missing, run.reason or missing))
