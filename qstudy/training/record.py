"""`record.json`: all that is kept of a run; reports are made from these files and nothing else.

Records may come from strangers: what is read is held against the types below, and unknown fields are ignored. Neither
torch nor Lightning is imported, so that whoever reads records need not wait for them.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import AfterValidator, ConfigDict
from typing_extensions import TypedDict

from qstudy.errors import UserError
from qstudy.fields import checked
from qstudy.files import read_json, safe_name, write_json

SCHEMA = 2
RECORD_FILE = "record.json"
MODEL_FILE = "model.qst"  # beside it
SMALLEST, LARGEST = 1e-9, 1e15  # beyond these no axis can be drawn
LABEL = 200  # characters: what is written beside points, into legends and table heads
UTTERANCES = 100_000  # of a set: what a bootstrap takes seconds for
_COUNTS = re.compile("[0-9]{1,6}( [0-9]{1,6})*")


def _amount(value: float) -> float:
    if value and not SMALLEST <= value <= LARGEST:
        raise ValueError(f"should be 0, or between {SMALLEST:g} and {LARGEST:g}")
    return value


def _label(text: str) -> str:
    if len(text) > LABEL or not text.isprintable():
        raise ValueError(f"should be one line of at most {LABEL} characters")
    return text


def _study(name: str) -> str:
    """A study's name begins the names of files."""
    try:
        return safe_name(name, "study") if name else name
    except UserError as error:
        raise ValueError(f"cannot name a file{str(error).rpartition(' cannot name a file')[2].rstrip('.')}") from error


def _utterances(value: "Utterances") -> "Utterances":
    errors, words = value.get("errors", ""), value.get("words", "")
    if not _COUNTS.fullmatch(errors) or not _COUNTS.fullmatch(words) or errors.count(" ") >= UTTERANCES:
        raise ValueError(
            f"needs `errors` and `words`, whole numbers below a million by utterance, of at most {UTTERANCES:,}"
        )
    if errors.count(" ") != words.count(" "):
        raise ValueError(f"has {errors.count(' ') + 1} errors, but {words.count(' ') + 1} words")
    return value


def _bits(value: "Bits") -> "Bits":
    if "grid" in value:  # unnoticed, a codebook would become uniform levels
        raise ValueError("has a `grid`, which is called `quantizer` since schema 2")
    return value


def _config(config: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(config.get("policy") or {}, dict):
        raise ValueError("needs a mapping `policy`")
    return config


Amount = Annotated[float, AfterValidator(_amount)]
"""Bytes, milliseconds, error rates, ...: 0 or more, and drawable."""
Count = Annotated[int, Ge(0), Le(10**15)]
Label = Annotated[str, AfterValidator(_label)]
Width = Annotated[int, Ge(1), Le(32)]
OPEN = ConfigDict(extra="allow")
"""Of a section: keys that are not declared are kept as they are."""


class Bits(TypedDict, total=False):
    """In which arithmetic one layer computes (`qstudy.bits.LayerBits`)."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    weight: Width | None
    activation: Width | None
    quantizer: Label
    granularity: Label
    placement: Label


class Layer(TypedDict, total=False):
    """One layer of the model: what it is, and how large."""

    kind: Label | None
    parameters: Count | None
    bytes: Count | None


class Latency(TypedDict, total=False):
    """What the simulator says of the model on one accelerator (`qstudy.hardware.simulator.Report`)."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    latency_ms: Amount | None
    rtf: Amount | None


class Scores(TypedDict, total=False):
    """Errors on one set; rates are fractions, `rtf` seconds of decoding per second of speech."""

    wer: Amount | None
    wer_low: Amount | None
    wer_high: Amount | None
    cer: Amount | None
    substitutions: Count | None
    insertions: Count | None
    deletions: Count | None
    words: Count | None
    utterances: Count | None
    rtf: Amount | None


class Utterances(TypedDict, total=False):
    """Word errors and reference words of every utterance of a set, as text: `0 2 1`."""

    errors: str
    words: str


class Sample(TypedDict, total=False):
    """A sentence, and what the model heard."""

    reference: str
    hypothesis: str


class Baseline(TypedDict, total=False):
    """The float model that the run started from."""

    id: Label
    wer: Amount | None
    size_bytes: Count | None
    metrics: dict[Label, Scores] | None
    utterances: dict[Label, Annotated[Utterances, AfterValidator(_utterances)]] | None
    latency: dict[Label, Latency] | None


class StepTime(TypedDict, total=False):
    """Milliseconds of a training step."""

    median: Amount | None
    p95: Amount | None


class Loss(TypedDict, total=False):
    """The mean loss of the first and of the last steps; may be negative."""

    first: float | None
    last: float | None


class Choice(TypedDict, total=False):
    """The quantizer that calibration chose for a tensor, and the errors of all candidates."""

    quantizer: Label | None
    errors: dict[Label, Amount | None] | None


class Notes(TypedDict, total=False):
    """What the policy chose by itself."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    choices: dict[Label, Choice] | None


class LatencyBudget(TypedDict, total=False):
    """Milliseconds that a model may take on an accelerator."""

    accelerator: Label
    limit: Amount | None


class Budgets(TypedDict, total=False):
    """What a study allows."""

    size_bytes: Amount | None
    latency_ms: LatencyBudget | None


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run; sections are plain JSON mappings, of the types above."""

    schema: int = SCHEMA
    run: Label
    """Its name, and that of its folder."""
    study: Annotated[str, AfterValidator(_study)] | None = None
    trial: Count | None = None
    """Its number in the study."""
    state: Literal["complete", "pruned", "failed"]
    reason: str | None = None
    """Why it was pruned, or failed."""
    policy: Label
    config: Annotated[dict[str, Any], AfterValidator(_config)] | None = None
    """Resolved: every field of `qstudy.training.config.RunConfig`."""
    bit_map: dict[Label, Annotated[Bits, AfterValidator(_bits)]] | None = None
    """Layer -> widths."""
    layers: dict[Label, Layer] | None = None
    size_bytes: Count | None = None
    """Of the packed model's tensors."""
    latency: dict[Label, Latency] | None = None
    """Accelerator -> simulated totals."""
    notes: Notes | None = None
    metrics: dict[Label, Scores] | None = None
    """Set -> errors of the packed model."""
    utterances: dict[Label, Annotated[Utterances, AfterValidator(_utterances)]] | None = None
    training_model_wer: Amount | None = None
    """Word error rate of the model that was trained, on dev."""
    samples: list[Sample] | None = None
    file_bytes: Count | None = None
    """Of the packed model's file."""
    baseline: Baseline | None = None
    steps: Count | None = None
    step_ms: StepTime | None = None
    train_seconds: Amount | None = None
    data_wait: Amount | None = None
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
