"""All runs of one study folder, and what they share: the float baseline, the set reported on, the budgets."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analysis.fields import mapping
from analysis.parse import parse_run, told_baseline
from analysis.records import FLOAT, Run, Scores
from analysis.text import counted, slug
from analysis.variants import with_variants
from qstudy.errors import UserError
from qstudy.files import parse_json, read_json

RECORDS = "records.jsonl"
"""A report keeps a copy of its records under this name, so that it can be rebuilt from itself."""


@dataclass(frozen=True)
class Problem:
    """A record that could not be used."""

    source: str
    """File, relative to the study's folder."""
    message: str


@dataclass(frozen=True)
class Study:
    """The runs of one study, baseline first, then by trial."""

    name: str
    runs: tuple[Run, ...]
    split: str
    """The set whose word error rate is reported."""
    problems: tuple[Problem, ...] = ()

    @property
    def described_split(self) -> str:
        """The set with its counts: `test (300 utterances, 1,500 words)`."""
        scores = next((run.scores[self.split] for run in self.finished if run.scores[self.split].words), None)
        counts = (
            [
                counted(count, noun)
                for count, noun in ((scores.utterances, "utterance"), (scores.words, "word"))
                if count
            ]
            if scores
            else []
        )
        return f"{self.split} ({', '.join(counts)})" if counts else self.split

    @property
    def trials(self) -> list[Run]:
        """Finished runs with a word error rate on the reported set, without the baseline."""
        return [run for run in self.finished if not run.is_baseline]

    @property
    def finished(self) -> list[Run]:
        """Finished runs with a word error rate on the reported set, the baseline too."""
        return [run for run in self.runs if run.state == "complete" and self.split in run.scores]

    @property
    def unfinished(self) -> list[Run]:
        """Everything else: pruned, failed, or without a word error rate."""
        finished = {id(run) for run in self.finished}
        return [run for run in self.runs if id(run) not in finished]

    @property
    def reference(self) -> Run | None:
        """The float baseline that trials started from; None if nobody knows it or its rate on the reported set."""
        return next((run for run in self.finished if run.is_baseline), None)

    @property
    def float_scores(self) -> Scores | None:
        """The float baseline's word errors on the reported set."""
        return self.reference.scores[self.split] if self.reference else None

    @property
    def size_budget(self) -> float | None:
        """Bytes that a model may have."""
        return next((run.size_budget for run in self.runs if run.size_budget is not None), None)

    @property
    def latency_budgets(self) -> dict[str, float]:
        """Accelerator -> milliseconds that a model may take."""
        return {name: limit for run in self.runs for name, limit in run.latency_budgets.items()}

    @property
    def records(self) -> int:
        """How many records were read."""
        return sum(bool(run.raw) for run in self.runs)

    @property
    def limited(self) -> bool:
        """Whether the study has any budget."""
        return self.size_budget is not None or bool(self.latency_budgets)

    @property
    def accelerators(self) -> list[str]:
        """Accelerators that runs were simulated on; those with a budget first."""
        names = {name: None for run in self.runs for name in run.latency_ms}
        return sorted(names, key=lambda name: (name not in self.latency_budgets, name))


def load_study(folder: Path, split: str | None = None) -> Study:
    """Read every record under `folder`; those that cannot be read become `Study.problems`.

    Args:
        folder: a study (`runs/*/record.json`), or a report written earlier (`records.jsonl`).
        split: the set to report on; by default `test`, else the first one that is not `dev`, else `dev`.

    Raises:
        UserError: there is no record, or no finished run with a word error rate.
    """
    return _checked(folder, *_read(folder), split)


def load_studies(folder: Path, split: str | None = None) -> list[Study]:
    """The same for a report that tells of several studies: one `Study` for each that its records name.

    Raises:
        UserError: as `load_study`.
    """
    runs, problems = _read(folder)
    names = list(dict.fromkeys(run.study for run in runs if run.study))
    if len(names) < 2:
        return [_checked(folder, runs, problems, split)]
    grouped = [[run for run in runs if run.study == name] for name in names]
    return [_checked(folder, group, [] if index else problems, split) for index, group in enumerate(grouped)]


def _read(folder: Path) -> tuple[list[Run], list[Problem]]:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder of a study, such as studies/digits.")
    runs: list[Run] = []
    problems: list[Problem] = []
    for source, record in _records(folder):
        try:
            if isinstance(record, UserError):
                raise ValueError(str(record).replace(f"{folder}/", "").removeprefix(f"{source} is "))
            runs.append(parse_run(record))
        except ValueError as error:
            problems.append(Problem(source, str(error)))
    return runs, problems


def _checked(folder: Path, runs: list[Run], problems: list[Problem], split: str | None) -> Study:
    runs = with_variants(
        sorted(runs, key=lambda run: (not run.is_baseline, run.trial is None, run.trial or 0, run.name))
    )
    if not runs:
        broken = f" (and {len(problems)} that cannot be read: {problems[0].message})" if problems else ""
        raise UserError(f"{folder} holds no run records{broken}; run `qstudy sweep` first, or name another folder.")
    complete = [run for run in runs if run.state == "complete"]
    found = dict.fromkeys(name for run in complete for name in run.scores)
    splits = sorted(found, key=lambda name: {"test": 0, "dev": 2}.get(name, 1))
    if not splits:
        raise UserError(
            f"None of the {len(runs)} runs in {folder} is complete with a word error rate; "
            "let the sweep finish at least one trial, or loosen its budgets."
        )
    if split is not None and split not in splits:
        raise UserError(f"split: no finished run in {folder} was scored on {split!r}; there are {', '.join(splits)}.")
    named = next((run.study for run in runs if run.study), slug(folder.resolve().name))
    chosen = split or splits[0]
    return Study(named, (*_told(runs, chosen, bare=chosen == splits[0]), *runs), chosen, tuple(problems))


def _records(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield (source, record or the error that reading it gave), in a fixed order."""
    # A fixed depth rather than `**`: studies link folders, and checkpoints lie deeper.
    paths = {path for pattern in ("record.json", "*/record.json", "*/*/record.json") for path in folder.glob(pattern)}
    for path in sorted(paths):
        try:
            yield str(path.relative_to(folder)), read_json(path)
        except UserError as error:
            yield str(path.relative_to(folder)), error
    if (folder / RECORDS).exists() and not paths:
        for line, text in enumerate((folder / RECORDS).read_bytes().split(b"\n"), start=1):
            source = f"{RECORDS}:{line}"
            try:
                if text.strip():
                    yield source, parse_json(text, source)
            except UserError as error:
                yield source, error


def _told(runs: list[Run], split: str, bare: bool) -> list[Run]:
    """The baseline as trials describe it, for want of its own record.

    Args:
        runs: those that there are.
        split: the reported set.
        bare: whether the description's own `wer` is of that set.
    """
    parents = [parent for run in runs if run.state == "complete" and (parent := run.raw.get("baseline"))]
    if not parents or any(run.is_baseline for run in runs):
        return []
    parent = mapping(max(parents, key=lambda one: bool(mapping(one, "baseline").get("utterances"))), "baseline")
    metrics = mapping(parent.get("metrics"), "baseline.metrics")
    if bare and parent.get("wer") is not None:
        metrics.setdefault(split, {key: parent.get(key) for key in ("wer", "wer_low", "wer_high")})
    widths = {name: dict.fromkeys(("weight", "activation"), FLOAT) for run in runs for name in run.widths}
    return [replace(told_baseline(parent, metrics, widths), raw={})]
