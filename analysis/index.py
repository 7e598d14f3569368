"""One page over all reports: what the papers claim, the front that all studies share, and every run behind a point.

`reports/index.html` is made of the records that lie in the folders beside it, and of `papers.yaml`.
"""

import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from markupsafe import Markup, escape
from matplotlib import rc_context

from analysis.figures.joint import anchor, joint
from analysis.figures.style import SETTINGS, Picture
from analysis.folder import named
from analysis.joint import Task, stretches, tasks
from analysis.page import index_page
from analysis.papers import Paper, held_against_ours, load_papers
from analysis.records import RECORDS, parsed
from analysis.report import WRITERS
from analysis.study import Study, load_studies
from analysis.tables.table import Table
from analysis.text import MIB, listed, number, one_line, percent
from qstudy.errors import UserError

PAPERS = "papers.yaml"
MODEL = ".qst"
"""How a packed model's file ends."""
FEWEST = 6
"""Settings of a task that a figure is drawn of."""
SECTIONS = ("model", "policy", "start", "finetune", "training", "augment", "data", "seed")
"""Of a configuration: what the page tells of a run."""


class Made(NamedTuple):
    """How one run came about."""

    told: str
    """Its name, seed and rate, where a point is a mean of several."""
    command: str
    commit: str


class Run(NamedTuple):
    """What the page tells of a setting when its point is followed."""

    anchor: str
    name: str
    reports: dict[str, str]
    """Study -> folder of its report, of all that hold it."""
    told: str
    made: list[Made]
    """One for each seed; none: nobody has a record of it."""
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
    tables = [*([held_against_ours(papers, studies, places)] if papers else []), *map(stretches, known)]
    with rc_context(fname=SETTINGS):
        pictures = [picture for task in known for picture in joint(task)]
    contents = _files(pictures, tables)
    floats = {run.run: run.record for study in studies for run in _recorded(study.finished).itertuples()}
    runs = [_run(one, task, places, floats) for task in known for one in task.settings.itertuples()]
    page = index_page(
        pictures,
        contents,
        tables=tables,
        papers=[(paper, _folders(paper, places)) for paper in papers],
        runs=runs,
        reports=_reports(studies, places),
        others=_others(folder),
        linked=partial(_linked, folder=folder),
        command="qstudy index" + f" --reports {named(folder)}" * (folder != Path("reports")),
    )
    return contents | {"index.html": page.encode()}


def _readable(report: Path) -> list[Study]:
    """The studies of one report; of one that an older version wrote a warning instead, for the others' sake."""
    try:
        return load_studies(report)
    except UserError as error:
        print(one_line(f"warning: left out {report}: {error}"), file=sys.stderr)
        return []


def _once(loaded: dict[Path, list[Study]]) -> dict[Path, list[Study]]:
    """The reports without studies that another one before them holds, too: a study counts once."""
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


def _folders(paper: Paper, places: dict[str, str]) -> list[str]:
    """The reports that a paper's claims are held against, its own first."""
    named = [paper.report, *(places.get(claim.study, "") for claim in paper.claims)]
    return [folder for folder in dict.fromkeys(named) if folder in places.values()]


def _recorded(runs: pd.DataFrame) -> pd.DataFrame:
    """The float baselines that have a record."""
    return runs[runs.is_baseline & ~runs.from_trials]


def _run(one: Any, task: Task, places: dict[str, str], floats: dict[str, bytes]) -> Run:
    """What is behind a point, a row of `Task.settings`; `floats` has the records of float baselines by name."""
    study = next(study for study in task.studies if study.name == one.study)
    runs = study.finished[study.finished.setting == one.setting]
    record = parsed(one.record or floats.get(one.run, b""))
    config: dict[str, Any] = record.get("config") or {}
    several = len(runs) > 1
    kept = {
        name: config[name] for name in SECTIONS if config.get(name) is not None and not (several and name == "seed")
    }
    told = f"{one.architecture}, {one.title} {one.bits}: {percent(one.wer)} %"
    told += f" (mean of {len(runs)} seeds)" * several + f", {number(one.size_bytes / MIB)} MiB"
    if one.latency_ms > 0:
        told += f", {number(one.latency_ms)} ms"
    if not record:
        told += f"; a float model without a record of its own{_start(study, one.run)}"
    return Run(
        anchor(one.study, one.run),
        listed(list(runs.run)),
        {name: places[name] for name in (one.study, *one.also)},
        told,
        [_made(run, record, several) for run in runs.itertuples()] if record else [],
        yaml.safe_dump(kept, sort_keys=False, default_flow_style=None, width=110) if kept else "",
    )


def _made(run: Any, record: dict[str, Any], several: bool) -> Made:
    """A run's own record, else, of a float baseline, that which another study has of it."""
    own = parsed(run.record) or record
    seed = "" if np.isnan(run.seed) else f", seed {run.seed:.0f}"
    told = f"{run.run}{seed}: {percent(run.wer)} %" if several else ""
    return Made(told, own.get("command") or "not recorded", own.get("commit") or "not recorded")


def _start(study: Study, baseline: str) -> str:
    """The file that runs which started from a baseline give for it, if they name one."""
    for record in study.runs.record[study.runs.baseline == baseline]:
        start = (parsed(record).get("config") or {}).get("start")
        if isinstance(start, str) and start.endswith(MODEL):
            return f", read from {start}"
    return ""


def _others(folder: Path) -> dict[str, str]:
    """What lies beside the reports and is no report of records: folder -> its page, relative."""
    found: dict[str, str] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_dir() and not (path / RECORDS).exists()):
        for page in (path / "README.md", path / f"{path.name}.md"):
            if page.exists():
                found.setdefault(path.name, f"{path.name}/{page.name}")
    return found


def _linked(text: str, folder: Path) -> Markup:
    """A text in which paths of files and folders that lie in `folder`, named as `reports/...`, are links."""

    def link(found: re.Match[str]) -> str:
        path = folder / found[1]
        pages = [path / "index.html", path / "README.md", path / f"{path.name}.md"] if path.is_dir() else [path]
        page = next((page for page in pages if page.is_file()), None)
        return found[0] if page is None else f'<a href="{page.relative_to(folder)}">{found[0]}</a>'

    return Markup(re.sub(r"\breports/(\w[\w./-]*\w)", link, str(escape(text))))
