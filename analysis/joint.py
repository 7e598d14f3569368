"""Several studies of one task as one: every setting with its architecture, their common Pareto front, and who owns it.

A task is a test set: settings of different studies can be held against each other where they recognized the same
utterances.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.architectures import settings
from analysis.measures import front
from analysis.records import parsed
from analysis.study import Study
from analysis.tables.table import RATE, Column, Table, rate, with_rates
from analysis.text import DASH, MIB, counted, number, slug

ACCELERATOR = "edge_nna"
"""Whose latency is told: the one that all our studies simulate."""
KEPT = ["study", "run", "setting", "record", "policy", "title", "bits", "label", "architecture", "is_baseline"]
KEPT += ["wer", "low", "high", "choice", "spread", "n", "size_bytes", "latency_ms", "runs"]
COLUMNS = (
    Column("from_mib", "From (MiB)", "r", number),
    Column("policy", "Policy"),
    Column("bits", "Bits"),
    Column("architecture", "Architecture"),
    rate("wer", "WER (%) [95 %]"),
    Column("latency_ms", "Latency (ms)", "r", number, missing=DASH),
    Column("study", "Study"),
    Column("run", "Run"),
)


@dataclass(frozen=True)
class Task:
    """What several studies tell of one test set."""

    name: str
    """The folder of its manifest: `commands-20000`."""
    described: str
    """The set with its counts."""
    studies: tuple[Study, ...]

    @cached_property
    def settings(self) -> pd.DataFrame:
        """A row per setting and float baseline, of all studies: the columns of `analysis.architectures.settings`, with
        `study`, `latency_ms` (of ACCELERATOR), `also` (other studies that hold the same runs), and whether `on_front`
        of size against the rate on `chosen_on`."""
        parts = [_kept(study) for study in self.studies]
        found = pd.concat([part.dropna(axis=1, how="all") for part in parts], ignore_index=True).reindex(columns=KEPT)
        found = _once(found)
        rate = "choice" if self._choose_alike else "wer"
        return found.assign(on_front=found.index.isin(front(found, error=rate).index))

    @property
    def chosen_on(self) -> str:
        """The set by whose rates settings are on the front: dev, or, where a study has none, the reported one."""
        return self.studies[0].chosen_on if self._choose_alike else self.studies[0].split

    @property
    def _choose_alike(self) -> bool:
        """Else rates on dev would be held against rates on another set, which may be far harder."""
        return len({study.chosen_on for study in self.studies}) == 1

    @property
    def front(self) -> pd.DataFrame:
        """The settings on the front, smallest first."""
        return self.settings[self.settings.on_front].sort_values("size_bytes", kind="stable")


def tasks(studies: Sequence[Study]) -> list[Task]:
    """The studies by task: that of the largest test set first, which tells most. None of a study of several corpora."""
    grouped: dict[tuple[str, str], list[Study]] = {}
    for study in (one for one in studies if not one.corpus_options):
        grouped.setdefault((_corpus(study), study.described_split), []).append(study)
    names = [name for name, _ in grouped]  # files are named by them
    found = [
        Task(name if names.count(name) == 1 else f"{name} {described}", described, tuple(some))
        for (name, described), some in grouped.items()
    ]
    return sorted(found, key=lambda task: -_words(task.studies[0]))


def stretches(task: Task) -> Table:
    """Which policy owns which stretch of the common front: from this size on it recognized `chosen_on` best."""
    found = task.front
    frame = with_rates(found).assign(from_mib=found.size_bytes / MIB)
    caption = (
        f"The Pareto front of packed size against word error rate over {counted(len(task.studies), 'study')}, chosen "
        f"on {task.chosen_on}, reported on {task.described}: from this size on, up to the next row, this setting "
        f"recognized {task.chosen_on} best. Latency: simulated on {ACCELERATOR}."
    )
    names = [*(column.key for column in COLUMNS), "size_bytes", *RATE]
    return Table(f"front_{slug(task.name)}", f"Who owns the front: {task.name}", caption, _only(frame, names), COLUMNS)


def _kept(study: Study) -> pd.DataFrame:
    found = settings(study)
    runs = study.finished
    identities = pd.Series([*map(_identity, runs.itertuples())], runs.index).groupby(runs.setting).agg(frozenset)
    latency = found.get(f"latency_ms.{ACCELERATOR}", np.nan)
    return found.assign(latency_ms=latency, runs=found.setting.map(identities)).reindex(columns=KEPT)


def _identity(run: Any) -> tuple[str, ...]:
    """The same for a run in every study that holds it: when and how it was made; of a float model that others started
    from, whose record not every study has, its name, which ends in a hash, its size and its rate."""
    if run.is_baseline:
        return run.run, str(run.size_bytes), str(run.wer)
    return run.setting, str(run.seed), run.created or run.study, run.commit, run.command


def _once(found: pd.DataFrame) -> pd.DataFrame:
    """Without settings whose runs are all among those of another row; one with a record, and more seeds, stays."""
    kept: dict[int, list[str]] = {}
    for place in sorted(found.index, key=lambda place: (not found.record[place], -len(found.runs[place]))):
        home = next((other for other in kept if found.runs[place] <= found.runs[other]), None)
        if home is None:
            kept[place] = []
        else:
            kept[home].append(found.study[place])
    left = found.loc[sorted(kept)]
    return left.assign(also=[kept[place] for place in left.index]).reset_index(drop=True)


def _only(frame: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    return frame.reindex(columns=list(dict.fromkeys(names))).reset_index(drop=True)


def _words(study: Study) -> float:
    """Of the reported set; 0 if nobody tells."""
    return float(np.nan_to_num(study.finished[f"words.{study.split}"].max()))


def _corpus(study: Study) -> str:
    """The folder of the reported set's manifest, as the first run that tells has it."""
    for record in study.finished.record:
        data = (parsed(record).get("config") or {}).get("data") or {}
        path = {"dev": data.get("dev"), **(data.get("test") or {})}.get(study.split)
        if isinstance(path, str):
            return Path(path).parent.name or study.name
    return study.name
