"""One page over all reports: what the papers claim, the front that all studies share, and every run behind a point.

`reports/index.html` is made of the records that lie in the folders beside it, and of `papers.yaml`.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from matplotlib import rc_context

from analysis.figures.joint import anchor, joint
from analysis.figures.style import SETTINGS, Picture
from analysis.joint import Task, stretches, tasks
from analysis.page import index_page
from analysis.papers import held_against_ours, load_papers
from analysis.records import RECORDS, parsed
from analysis.report import WRITERS
from analysis.study import Study, load_studies
from analysis.tables.table import Table
from analysis.text import MIB, number, one_line, percent
from qstudy.errors import UserError

PAPERS = "papers.yaml"
FEWEST = 6
"""Settings of a task that a figure is drawn of."""
SECTIONS = ("model", "policy", "start", "finetune", "training", "augment", "data", "seed")
"""Of a configuration: what the page tells of a run."""


class Run(NamedTuple):
    """What the page tells of one run when its point is followed."""

    anchor: str
    name: str
    study: str
    folder: str
    """Of its report."""
    told: str
    command: str
    commit: str
    settings: str
    """Its configuration, YAML."""


def index_contents(folder: Path) -> dict[str, bytes]:
    """The files of the page over all reports of a folder, by name.

    Raises:
        UserError: no folder beside it holds records, or `papers.yaml` is wrong.
    """
    reports = sorted(path.parent for path in folder.glob(f"*/{RECORDS}"))
    if not reports:
        raise UserError(f"{folder} holds no reports ({RECORDS} in folders of their own); make one by `qstudy report`.")
    loaded = _once({report: _readable(report) for report in reports})
    studies = [study for some in loaded.values() for study in some]
    places = {study.name: report.name for report, some in loaded.items() for study in some}
    known = [task for task in tasks(studies) if len(task.settings) >= FEWEST]
    papers = load_papers(folder / PAPERS) if (folder / PAPERS).exists() else []
    tables = [*([held_against_ours(papers, studies)] if papers else []), *map(stretches, known)]
    with rc_context(fname=SETTINGS):
        pictures = [picture for task in known for picture in joint(task)]
    contents = _files(pictures, tables)
    runs = [run for task in known for run in _runs(task, places)]
    page = index_page(pictures, tables, papers, runs, _reports(studies, places), contents)
    return contents | {"index.html": page.encode()}


def _readable(report: Path) -> list[Study]:
    """The studies of one report; of one that an older version wrote a warning instead, for the others' sake."""
    try:
        return load_studies(report)
    except UserError as error:
        print(one_line(f"warning: left out {report}: {error}"), file=sys.stderr)
        return []


def _once(loaded: dict[Path, list[Study]]) -> dict[Path, list[Study]]:
    """The reports without studies that another one before them holds, too: runs count once."""
    seen: dict[str, Path] = {}
    for report, studies in loaded.items():
        for study in studies:
            if seen.setdefault(study.name, report) != report:
                where = f"that of {seen[study.name].name}; counted once."
                print(f"warning: {report.name}: its study {study.name} is {where}", file=sys.stderr)
        loaded[report] = [study for study in studies if seen[study.name] == report]
    return {report: studies for report, studies in loaded.items() if studies}


def _files(pictures: Sequence[Picture], tables: Sequence[Table]) -> dict[str, bytes]:
    contents = {f"{table.name}.{end}": writer(table).encode() for table in tables for end, writer in WRITERS.items()}
    for picture in pictures:
        contents |= picture.drawn()
    return contents


def _reports(studies: Sequence[Study], places: dict[str, str]) -> dict[str, list[Study]]:
    """Report folder -> its studies."""
    found: dict[str, list[Study]] = {}
    for study in studies:
        found.setdefault(places[study.name], []).append(study)
    return found


def _runs(task: Task, places: dict[str, str]) -> Iterator[Run]:
    for one in task.settings.itertuples():
        record = parsed(one.record)
        config: dict[str, Any] = record.get("config") or {}
        kept = {name: config[name] for name in SECTIONS if config.get(name) is not None}
        told = f"{one.architecture}, {one.title} {one.bits}: {percent(one.wer)} %, {number(one.size_bytes / MIB)} MiB"
        if one.latency_ms > 0:
            told += f", {number(one.latency_ms)} ms"
        yield Run(
            anchor(one.study, one.run),
            one.run,
            one.study,
            places[one.study],
            told,
            record.get("command") or "not recorded",
            record.get("commit") or "not recorded",
            yaml.safe_dump(kept, sort_keys=False, default_flow_style=None, width=110) if kept else "not recorded",
        )
