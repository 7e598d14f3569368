"""One run as its record tells it, in types."""

from dataclasses import dataclass, field
from typing import Any

FLOAT = 32  # this width means "no quantization"


@dataclass(frozen=True)
class Scores:
    """Word errors of one run on one set."""

    wer: float
    """Word error rate as a fraction; may exceed 1."""
    low: float | None = None
    """Lower end of its 95 % interval."""
    high: float | None = None
    """Upper end of its 95 % interval."""
    cer: float | None = None
    """Character error rate as a fraction."""
    words: int | None = None
    """Words in the references."""
    utterances: int | None = None
    """Utterances decoded."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends of the interval, widened so that the rate lies inside; None if the record has none."""
        if self.low is None or self.high is None:
            return None
        return min(self.low, self.wer), max(self.high, self.wer)


@dataclass(frozen=True)
class Edits:
    """Word errors utterance by utterance."""

    errors: tuple[int, ...]
    words: tuple[int, ...]
    """Words of each reference."""


@dataclass(frozen=True)
class Width:
    """In which arithmetic one layer computes."""

    weight: int = FLOAT
    activation: int = FLOAT
    quantizer: str = "uniform"
    granularity: str = "channel"
    placement: str = "accelerator"

    @property
    def quantized(self) -> bool:
        """Whether anything of the layer is quantized."""
        return self.weight != FLOAT or self.activation != FLOAT


@dataclass(frozen=True)
class Layer:
    """One layer of the model: what it is, and how large."""

    kind: str = ""
    parameters: int = 0


@dataclass(frozen=True)
class Run:
    """One trial, or the float baseline."""

    name: str
    policy: str
    state: str
    """`complete`, `pruned` or `failed`."""
    variant: str = ""
    """What tells it from the study's other runs under this policy: `max`, `mse gptq` (`analysis.variants`)."""
    study: str = ""
    trial: int | None = None
    reason: str = ""
    """Why it was pruned or failed."""
    widths: dict[str, Width] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)
    """Set name -> word errors of the packed model."""
    edits: dict[str, Edits] = field(default_factory=dict)
    """Set name -> word errors by utterance, where the record has them."""
    size_bytes: float | None = None
    latency_ms: dict[str, float] = field(default_factory=dict)
    """Accelerator -> simulated latency."""
    rtf: dict[str, float] = field(default_factory=dict)
    """Accelerator -> simulated real-time factor."""
    size_budget: float | None = None
    latency_budgets: dict[str, float] = field(default_factory=dict)
    """Accelerator -> limit, ms."""
    step_ms: float | None = None
    """Median time of a training step."""
    samples: tuple[tuple[str, str], ...] = ()
    """(reference, hypothesis) pairs."""
    raw: dict[str, Any] = field(default_factory=dict)
    """The whole record."""

    @property
    def is_baseline(self) -> bool:
        """Whether this is the float baseline itself, not a trial that started from it."""
        return self.policy == "float" and self.raw.get("baseline") is None

    @property
    def method(self) -> str:
        """The policy and what tells its variants apart: `fake_qat`, `ptq max`."""
        return f"{self.policy} {self.variant}".strip()

    @property
    def title(self) -> str:
        """The method as readers know it: a float run that started from the baseline is the control."""
        if self.policy != "float":
            return self.method
        return "float baseline" if self.is_baseline else "float control"

    @property
    def over_budget(self) -> bool:
        """Whether it was pruned before training because it breaks a budget."""
        return self.state == "pruned" and self.reason.startswith("over budget")

    def wer(self, split: str) -> float | None:
        """Word error rate on the set `split`, if it was measured."""
        return self.scores[split].wer if split in self.scores else None
