"""The one self-contained HTML page: no external resource, readable in the dark, on a phone and in print.

What moves is drawn in the browser by Vega, whose script is part of the page; without scripts, and in print, the page
shows the figures as files have them. Vega evaluates its expressions by its own interpreter (`ast`): no `eval`.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache, reduce
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from vl_convert import javascript_bundle

from analysis.figures.style import ROLES, Picture
from analysis.provenance import provenance
from analysis.section import Section, names, title
from analysis.summary import facts, sentence
from analysis.tables import Table
from analysis.tables.claims import summaries
from analysis.transcripts import sentences

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.policies["json.dumps_kwargs"] = {"separators": (",", ":")}


def page(
    shown: Sequence[Section],
    shared: Sequence[Table],
    together: Sequence[Picture],
    files: Mapping[str, bytes],
    command: str,
) -> str:
    """Render the page.

    Args:
        shown: the studies with their tables and figures, in the order of the page.
        shared: tables over all studies; claims first, if there are any.
        together: figures of all studies.
        files: what the report consists of besides, among it `NAME.svg` of every figure.
        command: what makes it anew from its records.
    """
    studies = [section.study for section in shown]
    pictures = [picture.name for section in shown for picture in section.pictures]
    pictures += [picture.name for picture in together]
    tables = [*shared, *(table for section in shown for table in section.tables)]
    return TEMPLATES.get_template("page.html").render(
        title=title(studies),
        sections=shown,
        shared=shared,
        together=together,
        claims=summaries(list(zip(names(studies), studies, strict=True))),
        facts=facts,
        sentence=sentence,
        sentences=sentences,
        svgs={name: Markup(_inline(name, files[f"{name}.svg"].decode())) for name in pictures},
        figure_numbers={name: number for number, name in enumerate(pictures, start=1)},
        table_numbers={table.name: number for number, table in enumerate(tables, start=1)},
        provenance={section.name: provenance(section.study.finished) for section in shown},
        origin=provenance(pd.concat([study.finished for study in studies])),
        command=command,
        records=sum((~study.runs.from_trials).sum() for study in studies),
        data=[section.data for section in shown],
        vega=_vega() if any(section.data["plots"] for section in shown) else "",
    )


def index_page(pictures: Sequence[Picture], drawn: Mapping[str, bytes], **told: Any) -> str:
    """Render the page over all reports (`analysis.index`).

    Args:
        pictures: the common fronts.
        drawn: `NAME.svg` of every figure.
        told: what else the template shows: `tables` (the papers' claims, who owns which stretch), `papers` (each with
            the folders of its reports), `runs` (what is behind the points), `reports` (folder -> studies), `others`
            (folder -> its page, of what is no report of records), `linked` (makes the paths in a text links), and the
            `command` that makes the page.
    """
    return TEMPLATES.get_template("index.html").render(
        pictures=pictures,
        **told,
        sentence=sentence,
        svgs={
            picture.name: Markup(_inline(picture.name, drawn[f"{picture.name}.svg"].decode())) for picture in pictures
        },
    )


def _inline(name: str, svg: str) -> str:
    """A drawn SVG for the page: no prologue, ids of its own, greys that follow the page's colours."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(id="|url\(#|href="#)(?!run-)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'^<svg[^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1>", svg)
    return reduce(lambda text, role: text.replace(*role), ROLES.items(), svg)


@cache
def _vega() -> Markup:
    """Vega, Vega-Lite and Vega-Embed as one script that defines `vegaEmbed`."""
    return Markup(javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", r"<\/script"))
