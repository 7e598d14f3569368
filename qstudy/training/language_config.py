"""What the training of a language model is made of: plain dataclasses, filled from YAML and the command line."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qstudy.errors import UserError
from qstudy.fields import Seed, Share, Steps, Text, check_fields
from qstudy.files import file_hash
from qstudy.settings import LanguageModelConfig, named_part
from qstudy.training.config import Norm, Optimization, Rate, TrainerConfig


@dataclass
class LanguageTraining(Optimization):
    """How a language model is trained from scratch."""

    learning_rate: Rate = 3e-3
    """Peak of the warm-up; a cosine to 1 % of it follows."""
    warmup: Share = 0.05
    """Share of the steps before the peak."""
    clip: Norm = 1.0
    """Largest norm of the gradient."""


@dataclass
class LanguageFinetuning(LanguageTraining):
    """How a language model is trained on from another."""

    steps: Steps = 400
    """Optimizer steps."""
    learning_rate: Rate = 1e-3
    """Peak of the warm-up; a cosine to 1 % of it follows."""


@dataclass
class LanguageConfig:
    """One training of a language model: texts, a recognizer's labels, a policy."""

    text: Text
    """Text file to learn, one sentence per line."""
    dev: Text | None = None
    """Text file whose perplexity the record tells."""
    like: Text | None = None
    """The recognizer whose labels it speaks (.qst or .ckpt); a language model (.qst) will do as well. None: that of
    `start`, or else `tokenizer`."""
    tokenizer: dict[str, Any] = field(default_factory=lambda: {"name": "characters"})
    """Where there is no recognizer yet: `{name: characters, alphabet: ...}`."""
    skip_unknown: bool = False
    """Leave out lines with characters that no label covers, and count them, instead of stopping."""
    model: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    """How large it is."""
    policy: dict[str, Any] = field(default_factory=lambda: {"name": "float"})
    """As for recognizers: `{name: NAME, **options}`."""
    start: Text | None = None
    """The language model (.qst) that training starts from; every policy but `float` needs one."""
    training: LanguageTraining = field(default_factory=LanguageTraining)
    """Training from scratch."""
    finetune: LanguageFinetuning = field(default_factory=LanguageFinetuning)
    """Training from `start`."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """Devices."""
    seed: Seed = 0
    """Seed of weights, batches and dropout."""

    def __post_init__(self) -> None:
        check_fields(self)
        named_part("policy", self.policy)
        named_part("tokenizer", self.tokenizer)
        if self.start is None and self.policy["name"] != "float":
            raise UserError(
                f"start: the policy {self.policy['name']} starts from a float language model; train one, and name its "
                "model.qst."
            )

    @property
    def schedule_name(self) -> str:
        """The field whose schedule applies."""
        return "training" if self.start is None else "finetune"

    @property
    def schedule(self) -> Optimization:
        """The schedule that applies."""
        return self.training if self.start is None else self.finetune

    @property
    def start_identity(self) -> str | None:
        """The hash of the file that training starts from.

        Raises:
            UserError: there is no such file.
        """
        if self.start is None:
            return None
        try:
            return file_hash(Path(self.start))
        except OSError as error:
            raise UserError(f"start: cannot read {self.start} ({error.strerror}); name a language model.") from error


def to_dict(config: LanguageConfig) -> dict[str, Any]:
    """The resolved configuration, JSON-able."""
    return asdict(config)
