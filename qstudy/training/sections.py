"""What the sections of a record hold: plain JSON mappings, their numbers and words held against these types.

Records come from anybody, and their numbers and words go into figures, tables and names of files.
"""

import re
from typing import Annotated, Any

from annotated_types import Ge, Le
from pydantic import AfterValidator, ConfigDict
from typing_extensions import TypedDict

from qstudy.errors import UserError
from qstudy.files import safe_name

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
    groups = value.get("groups", words)
    if not _COUNTS.fullmatch(groups) or groups.count(" ") != words.count(" "):
        raise ValueError(f"needs `groups`, a whole number for each of its {words.count(' ') + 1} utterances")
    return value


def _bits(value: "Bits") -> "Bits":
    if "grid" in value:  # unnoticed, a codebook would become uniform levels
        raise ValueError("has a `grid`, which is called `quantizer` since schema 2")
    return value


def _config(config: dict[str, Any]) -> dict[str, Any]:
    for name in ("policy", "data", "model", "training", "finetune", "features", "augment"):
        if not isinstance(config.get(name) or {}, dict):
            raise ValueError(f"needs a mapping `{name}`")
    return config


Amount = Annotated[float, AfterValidator(_amount)]
"""Bytes, milliseconds, error rates, ...: 0 or more, and drawable."""
Measure = Annotated[float, Ge(0), Le(LARGEST)]
"""What is not drawn, and may be as small as it likes: an error of rounding, a share of time."""
Count = Annotated[int, Ge(0), Le(10**15)]
Label = Annotated[str, AfterValidator(_label)]
Width = Annotated[int, Ge(1), Le(32)]
StudyName = Annotated[str, AfterValidator(_study)]
Config = Annotated[dict[str, Any], AfterValidator(_config)]
"""Resolved: every field of `qstudy.training.config.RunConfig`."""
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


BitMap = dict[Label, Annotated[Bits, AfterValidator(_bits)]]


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
    """Errors on one set; rates are fractions, `rtf` seconds of decoding per second that is heard: of speech and of the
    silence after it (`features.tail_ms`)."""

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
    """Word errors and reference words of every utterance of a set, as text: `0 2 1`; and the number of its group, where
    utterances share speakers or recordings."""

    errors: str
    words: str
    groups: str


Edits = dict[Label, Annotated[Utterances, AfterValidator(_utterances)]]


class Backlog(TypedDict, total=False):
    """Of utterances with the branches that were taken, on one accelerator."""

    latency_ms: Amount | None
    """From the end of speech to the last result, median."""
    worst_ms: Amount | None
    """The longest that any work waited and took."""


class Usage(TypedDict, total=False):
    """What an amortized encoder computed on a set, counted while it ran."""

    audio_s: Measure | None
    macs_per_s: Amount | None
    """Multiply-accumulates per second of audio."""
    full_macs_per_s: Amount | None
    """Those that the full branch alone would take."""
    saved: float | None
    """Share of them that was not computed; below 0 where the arbitrator costs more than it saves."""
    full_share: list[Measure] | None
    """Share of the frames that took the full branch, by layer."""
    backlog: dict[Label, Backlog] | None
    """Accelerator -> how far it is behind; of dev."""


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
    utterances: Edits | None
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
    errors: dict[Label, Measure | None] | None


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
