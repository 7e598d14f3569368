"""All runs of one study folder, and what they share: the float baseline, the set reported on, the budgets."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.records import Run, Scores, mapping, number, parse_run, parse_scores
from analysis.text import counted
from qstudy.errors import UserError
from qstudy.files import read_json

RECORDS = "records.jsonl"
"""A report keeps a copy of its records under this name, so that it can be rebuilt from itself."""


@dataclass(frozen=True)
class Problem:
    """A record that could not be used."""

    source: str
    """File, relative to the study's folder."""
    message: str


@dataclass(frozen=True)
class Reference:
    """The float model that every trial started from."""

    size_bytes: float | None
    scores: dict[str, Scores]
    run: Run | None = None
    """Its own record, where the study has it."""

    def wer(self, split: str) -> float | None:
        """Word error rate on the set `split`, if known."""
        return self.scores[split].wer if split in self.scores else None


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
        scores = self.finished[0].scores[self.split] if self.finished else None
        counts = [counted(count, noun) for count, noun in ((scores.utterances, "utterance"), (scores.words, "word"))
                  if count] if scores else []  # fmt: skip
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
    def reference(self) -> Reference | None:
        """The float baseline: its own record, else what the trials say of it; None if nobody knows."""
        for run in self.finished:
            if run.is_baseline:
                return Reference(run.size_bytes, run.scores, run)
        parents = [parent for run in self.finished if (parent := run.raw.get("baseline"))]
        return _told(mapping(parents[0], "baseline"), self.split) if parents else None

    @property
    def size_budget(self) -> float | None:
        """Bytes that a model may have."""
        return next((run.size_budget for run in self.runs if run.size_budget is not None), None)

    @property
    def latency_budgets(self) -> dict[str, float]:
        """Accelerator -> milliseconds that a model may take."""
        return {name: limit for run in self.runs for name, limit in run.latency_budgets.items()}

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
        split: the set to report on; by default `test`, else `dev`, else the first one that there is.

    Raises:
        UserError: there is no record, or no finished run with a word error rate.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder of a study, such as studies/digits.")
    runs: list[Run] = []
    problems: list[Problem] = []
    for source, record in _records(folder):
        try:
            if isinstance(record, UserError):
                raise ValueError(str(record).replace(f"{folder}/", ""))
            runs.append(parse_run(record))
        except ValueError as error:
            problems.append(Problem(source, str(error)))
    runs.sort(key=lambda run: (not run.is_baseline, run.trial is None, run.trial or 0, run.name))
    return _checked(folder, runs, problems, split)


def _checked(folder: Path, runs: list[Run], problems: list[Problem], split: str | None) -> Study:
    if not runs:
        broken = f" (and {len(problems)} that cannot be read: {problems[0].message})" if problems else ""
        raise UserError(f"{folder} holds no run records{broken}; run `qstudy sweep` first, or name another folder.")
    complete = [run for run in runs if run.state == "complete"]
    splits = sorted({name for run in complete for name in run.scores}, key=lambda name: (_preference(name), name))
    if not splits:
        raise UserError(
            f"None of the {len(runs)} runs in {folder} is complete with a word error rate; "
            "let the sweep finish at least one trial, or loosen its budgets."
        )
    if split is not None and split not in splits:
        raise UserError(f"split: no finished run in {folder} was scored on {split!r}; there are {', '.join(splits)}.")
    named = next((run.study for run in runs if run.study), folder.resolve().name)
    return Study(named, tuple(runs), split or splits[0], tuple(problems))


def _preference(split: str) -> int:
    return {"test": 0, "dev": 1}.get(split, 2)


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
        for line, text in enumerate((folder / RECORDS).read_text(encoding="utf-8").splitlines(), start=1):
            try:
                yield f"{RECORDS}:{line}", json.loads(text)
            except json.JSONDecodeError as error:
                yield f"{RECORDS}:{line}", UserError(f"not valid JSON: {error.msg}.")


def _told(parent: dict[str, Any], split: str) -> Reference:
    """The baseline as a trial's record describes it; its bare `wer` is taken to be of the reported set."""
    scores = parse_scores(parent.get("metrics"))
    wer = number(parent.get("wer"), "baseline.wer")
    if split not in scores and wer is not None:
        scores[split] = Scores(
            wer, number(parent.get("wer_low"), "wer_low"), number(parent.get("wer_high"), "wer_high")
        )
    return Reference(number(parent.get("size_bytes"), "baseline.size_bytes"), scores)
