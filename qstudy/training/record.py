"""`record.json`: all that is kept of a run; reports are made from these files and nothing else.

Records may come from strangers: what is read is held against the types of `qstudy.training.sections`, and unknown
fields are ignored. Neither torch nor Lightning is imported, so that whoever reads records need not wait for them.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from qstudy.errors import UserError
from qstudy.fields import checked
from qstudy.files import read_json, write_json
from qstudy.locks import locked
from qstudy.training.sections import (
    Amount,
    Baseline,
    BitMap,
    Budgets,
    Config,
    Count,
    Edits,
    Label,
    Latency,
    Layer,
    Loss,
    Measure,
    Notes,
    Sample,
    Scores,
    StepTime,
    StudyName,
    Usage,
)

SCHEMA = 2
RECORD_FILE = "record.json"
MODEL_FILE = "model.qst"  # beside it


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run; sections are plain JSON mappings, of the types in `qstudy.training.sections`."""

    schema: int = SCHEMA
    run: Label
    """Its name, and that of its folder."""
    study: StudyName | None = None
    trial: Count | None = None
    """Its number in the study."""
    state: Literal["complete", "pruned", "failed"]
    reason: str | None = None
    """Why it was pruned, or failed."""
    policy: Label
    config: Config | None = None
    bit_map: BitMap | None = None
    """Layer -> widths."""
    layers: dict[Label, Layer] | None = None
    size_bytes: Count | None = None
    """Of the packed model's tensors."""
    latency: dict[Label, Latency] | None = None
    """Accelerator -> simulated totals."""
    notes: Notes | None = None
    metrics: dict[Label, Scores] | None = None
    """Set -> errors of the packed model."""
    first_pass: dict[Label, Scores] | None = None
    """The same of a cascaded encoder's first pass alone."""
    utterances: Edits | None = None
    usage: dict[Label, Usage] | None = None
    """Set -> what an amortized encoder computed."""
    training_model_wer: Amount | None = None
    """Word error rate of the model that was trained, on dev."""
    mismatches: Count | None = None
    """Utterances of dev in which the packed model hears something else than the one that was trained."""
    samples: list[Sample] | None = None
    file_bytes: Count | None = None
    """Of the packed model's file."""
    baseline: Baseline | None = None
    steps: Count | None = None
    step_ms: StepTime | None = None
    train_seconds: Measure | None = None
    data_wait: Measure | None = None
    """Share of the training's time that was spent waiting for data."""
    loss: Loss | None = None
    precision: Label | None = None
    seed: Count | None = None
    versions: dict[Label, Label] | None = None
    commit: Label | None = None
    command: str | None = None
    created: Label | None = None
    machine: dict[str, Any] | None = None
    budgets: Budgets | None = None
    scored: Label | None = None
    """Of a baseline: the hash of the sets and accelerators that its scores are of."""

    @property
    def headline(self) -> dict[str, float]:
        """The numbers that stand for a run: `wer` (of the first test set, else of dev), `size_bytes`, `latency_ms`,
        `rtf`, as far as there are any.

        Latency and real-time factor are those simulated on the first accelerator.
        """
        metrics, latency = self.metrics or {}, self.latency or {}
        scores: Any = next((scores for name, scores in metrics.items() if name != "dev"), metrics.get("dev", {}))
        simulated: Any = next(iter(latency.values()), {})
        found = {"wer": scores.get("wer"), "size_bytes": self.size_bytes}
        found |= {name: simulated.get(name) for name in ("latency_ms", "rtf")}
        return {name: value for name, value in found.items() if value is not None}


def parse_record(values: Any) -> Record:
    """A record from its JSON; fields that are unknown, or of a later version, are ignored.

    Raises:
        UserError: it is no mapping, a field that every record has is missing, or a field has a wrong type or value.
    """
    if not isinstance(values, Mapping):
        raise UserError("The record is not a mapping.")
    known = {one.name: values[one.name] for one in fields(Record) if one.name in values}
    record: Record = checked(Record, known, "")
    return record


def require_valid(record: Record) -> None:
    """Raise UserError unless a record could be written."""
    parse_record(_finite(asdict(record)))


def write_record(folder: Path, record: Record) -> Record:
    """Write `folder/record.json` in one step and return what it holds: NaN and infinity are None.

    Raises:
        UserError: a field has a wrong type or value, or the folder cannot be written.
    """
    values = _finite(asdict(record))
    written = parse_record(values)
    write_json(folder / RECORD_FILE, values)
    return written


def read_record(path: Path) -> Record:
    """Read one record.

    Raises:
        UserError: the file is missing, damaged, or of another schema.
    """
    values = read_json(path)
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema != SCHEMA:
        raise UserError(
            f"{path} is not a record that this version reads: `schema` is {schema!r}, not {SCHEMA}; "
            "remove it, and the run is made again."
        )
    try:
        return parse_record(values)
    except UserError as error:
        raise UserError(
            f"{path} is damaged: {str(error).rstrip('.')}; remove it, and the run is made again."
        ) from error


def change_record(folder: Path, change: Callable[[Record], Record]) -> Record:
    """Replace `folder/record.json` by what `change` makes of it as it is now; of several processes one at a time, so
    that nothing which another has added is lost.

    Raises:
        UserError: as `read_record`, `write_record` and `change`; or the folder cannot be written.
    """
    try:
        with locked(folder / "record.lock"):
            return write_record(folder, change(read_record(folder / RECORD_FILE)))
    except OSError as error:
        raise UserError(f"Cannot write into {folder}: {error.strerror or error}; free space, or copy it.") from error


def is_of_other_kind(path: Path) -> bool:
    """Whether a record is not of a recognizer's training: that of a language model says its `kind`."""
    values = read_json(path)
    return isinstance(values, dict) and "kind" in values


def read_records(study: Path) -> list[Record]:
    """The records of a study's folder, by run name; empty if no run has ended.

    Raises:
        UserError: a record is damaged or of another schema.
    """
    return [read_record(path) for path in sorted(study.glob(f"runs/*/{RECORD_FILE}"))]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
