"""What a run is made of: plain dataclasses, filled from YAML and the command line."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen

from qstudy.errors import UserError
from qstudy.fields import Seed, Share, Steps, Text, check_fields, fill, merged
from qstudy.files import file_hash
from qstudy.hardware.accelerator import DEFAULT
from qstudy.settings import AugmentSettings, FeatureSettings, ModelConfig, named_part
from qstudy.yaml_file import load_yaml

__all__ = [
    "DataConfig",
    "Optimization",
    "RunConfig",
    "Schedule",
    "TrainerConfig",
    "config_from_dict",
    "load_config",
    "to_dict",
]

Precision = Literal["auto", "bf16-mixed", "32-true"]

Utterances = Annotated[int, Ge(1), Le(1_000_000)]
Machines = Annotated[int, Ge(1), Le(10_000)]
Weight = Annotated[float, Ge(0), Le(1000)]
Rate = Annotated[float, Gt(0), Le(100)]
Norm = Annotated[float, Gt(0), Le(1e9)]


NEUTRAL = ("checkpoint_every", "evaluate_every")
"""What of a schedule changes nothing in what is trained."""


def without_neutral(values: Mapping[str, Any], schedules: Iterable[str]) -> dict[str, Any]:
    """A configuration's values, the schedules of these fields without what changes nothing."""
    kept = {name: {k: v for k, v in values[name].items() if k not in NEUTRAL} for name in schedules}
    return {**values, **kept}


@dataclass
class DataConfig:
    """Where utterances come from.

    Paths may hold options of `make` in braces, which are filled in: `out: corpora/without-{unheard}` there, here
    `train: "{out}/train.jsonl"`.
    """

    train: Text
    """Manifest of the training set."""
    dev: Text
    """Manifest that choices are made on."""
    test: dict[Text, Text] = field(default_factory=dict)
    """Manifests that are only reported, by name; they take the place of those that stood here before."""
    make: dict[str, Any] = field(default_factory=dict)
    """How to make the corpus if `train` is missing: {corpus: commands, out: corpora/commands}, as `qstudy data`;
    or a function of your own, {corpus: file.function, out: FOLDER}. Nothing is made for a `train` outside `out`."""
    skip_broken: bool = False
    """Leave out utterances with broken audio or text, instead of stopping."""
    workers: Annotated[int, Ge(0), Le(256)] | None = None
    """Loader processes per device, which pad and augment; 0: the training process does it. None: 0 on a CPU, whose
    cores are busy anyway, 4 per GPU."""

    def __post_init__(self) -> None:
        check_fields(self)
        if isinstance(out := self.make.get("out"), str):
            self.make = {**self.make, "out": _filled(out, self.make)}
        self.train, self.dev = (_filled(path, self.make) for path in (self.train, self.dev))
        self.test = {name: _filled(path, self.make) for name, path in self.test.items()}
        if "dev" in self.test:
            raise UserError("test: no test set can be named dev, which is the set that choices are made on; rename it.")

    @property
    def is_makeable(self) -> bool:
        """Whether `make` would write the training set; one that lies outside `out` is the user's own."""
        train = Path(self.train).resolve()
        return bool(self.make) and train.is_relative_to(Path(str(self.make.get("out", train.parent))).resolve())


def _filled(path: str, options: Mapping[str, Any]) -> str:
    """A path in which `{name}` stands for the option of that name, as `a-b` if it is a list."""
    for name, value in options.items():
        path = path.replace(f"{{{name}}}", "-".join(map(str, value if isinstance(value, list) else [value])))
    return path


@dataclass
class TrainerConfig:
    """On how many devices a model is trained: handed to Lightning's Trainer as it is.

    The batch of a step is divided among the devices, so their number changes the speed, and the result by rounding.
    """

    devices: Annotated[int, Ge(-1), Le(10_000)] | Text = 1
    """Devices per machine: a number, a list such as `0,3`, or `auto` for all."""
    num_nodes: Machines = 1
    """Machines."""
    strategy: Text = "auto"
    """How they share the work, in Lightning's words; `auto`, where there are several: DistributedDataParallel that lets
    parameters go without a gradient, because CTC alone trains the encoder at first."""
    accelerator: Text = "auto"
    """`gpu`, `cpu`, or `auto` for the best one there is."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass
class Optimization:
    """How any model is trained."""

    steps: Steps = 3000
    """Optimizer steps."""
    batch_size: Utterances = 32
    """Utterances (of a language model: texts) per step, all devices together."""
    accumulate: Utterances = 1
    """Passes per step on each device: divides the memory that a step needs, not its batch."""
    learning_rate: Rate = 7e-3
    """Peak of the warm-up; a cosine to 1 % of it follows."""
    warmup: Share = 0.1
    """Share of the steps before the peak."""
    weight_decay: Weight = 0.0
    """Weight decay of AdamW."""
    clip: Norm = 2.0
    """Largest norm of the gradient."""
    precision: Precision = "auto"
    """Arithmetic of the unquantized parts while training; `auto`: bf16-mixed where the device multiplies in bfloat16,
    else 32-true. The evaluation of the finished model is always float32; those while it trains are in this."""
    checkpoint_every: Steps = 100
    """Steps between checkpoints: what a killed run loses at most."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass
class Schedule(Optimization):
    """How a transducer is trained."""

    batch_frames: Annotated[int, Ge(1), Le(10**9)] | None = None
    """Feature frames per step at most, padding included, before augmentation; long utterances then come in smaller
    batches. None: no limit."""
    ctc_only: Share = 0.12
    """Share of the steps with CTC alone, for the encoder (RNN-T from scratch learns the language, not the audio)."""
    ctc_weight: Weight = 0.3
    """Weight of the CTC loss beside the RNN-T loss."""
    ctc_late: Weight = 0.1
    """The same in the second half."""
    augment_from: Share = 0.1
    """Share of the steps before augmentation begins."""
    evaluate_every: Annotated[int, Ge(0), Le(10**8)] = 0
    """Steps between evaluations on the dev set while training; 0: only at the end."""


@dataclass
class Finetuning(Schedule):
    """How a transducer that can already recognize is trained on."""

    steps: Annotated[int, Ge(0), Le(10**8)] = 400
    """Optimizer steps; 0: quantizers are calibrated, nothing is trained."""
    learning_rate: Rate = 1e-3
    """Peak of the warm-up; a cosine to 1 % of it follows."""
    warmup: Share = 0.05
    """Share of the steps before the peak."""
    ctc_only: Share = 0.0
    """Share of the steps with CTC alone."""
    ctc_weight: Weight = 0.0
    """Weight of the CTC loss beside the RNN-T loss."""
    ctc_late: Weight = 0.0
    """The same in the second half."""
    augment_from: Share = 0.0
    """Share of the steps before augmentation begins."""


@dataclass
class RunConfig:
    """One run: a model, a policy, and how to get there."""

    data: DataConfig
    """Manifests."""
    features: FeatureSettings = field(default_factory=FeatureSettings)
    """Filterbank."""
    tokenizer: dict[str, Any] = field(default_factory=lambda: {"name": "characters"})
    """`{name: characters}` or `{name: sentencepiece, size: 128}`."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The transducer's parts."""
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    """What is done to training features."""
    policy: dict[str, Any] = field(default_factory=lambda: {"name": "float"})
    """`{name: NAME, **options}`: float, ptq, fake_qat, native_int, s8bqat, accelerator_aware, int4_e2e, mixed,
    switchable, encoder_only, or a class of your own as file.Class."""
    training: Schedule = field(default_factory=Schedule)
    """Training from scratch: the float baseline."""
    finetune: Finetuning = field(default_factory=Finetuning)
    """Training from the float baseline or a model file: everything else."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """Devices."""
    start: Text | None = None
    """Where training starts: `scratch`, `baseline` (a float model of this configuration, trained on first use), or a
    model file (.ckpt or .qst, of any widths) of the same features, tokenizer and model. By default scratch for the
    policy `float`, the float baseline for all others."""
    accelerator: Annotated[list[Text], MinLen(1)] = field(default_factory=lambda: [DEFAULT])
    """Accelerators whose latency is simulated: profile names or files."""
    cache: Text = "cache"
    """Folder of feature caches and float baselines, shared by all runs."""
    track: bool = True
    """Mirror the run in Weights & Biases (offline unless you are logged in)."""
    seed: Seed = 0
    """Seed of weights, batches and augmentation."""

    def __post_init__(self) -> None:
        check_fields(self)
        named_part("policy", self.policy)
        named_part("tokenizer", self.tokenizer)
        if self.start not in (None, "scratch", "baseline") and not self.start.endswith((".ckpt", ".qst")):
            raise UserError(f"start: {self.start!r} is neither scratch nor baseline nor a model file (.ckpt or .qst).")

    @property
    def start_file(self) -> Path | None:
        """The model file that training starts from, if it is one."""
        return None if self.start in (None, "scratch", "baseline") else Path(self.start)

    @property
    def start_identity(self) -> str | None:
        """What training starts from: the hash of the model file's content, or the word that stands there.

        Raises:
            UserError: there is no such file.
        """
        if self.start_file is None:
            return self.start
        try:
            return file_hash(self.start_file)
        except OSError as error:
            raise UserError(
                f"start: there is no model file {self.start_file} ({error.strerror}); put it there, or train the float "
                "baseline anew: `qstudy sweep ... --fresh`, `qstudy train ... --start baseline`."
            ) from error

    @property
    def from_scratch(self) -> bool:
        """Whether this run trains from random weights."""
        return (self.start or ("scratch" if self.policy.get("name") == "float" else "baseline")) == "scratch"

    @property
    def schedule_name(self) -> str:
        """The field whose schedule applies."""
        return "training" if self.from_scratch else "finetune"

    @property
    def schedules(self) -> set[str]:
        """The fields whose schedules a model depends on: the one that applies, and that of a baseline trained first."""
        return {self.schedule_name, *(["training"] if self.start_file is None else [])}

    @property
    def schedule(self) -> Schedule:
        """The schedule that applies."""
        return self.training if self.from_scratch else self.finetune


def config_from_dict(values: dict[str, Any]) -> RunConfig:
    """Check and fill a configuration; nothing that stands in it is imported.

    Raises:
        UserError: an unknown field or a wrong value, by name.
    """
    try:
        return fill(RunConfig, values)
    except UserError as error:
        raise UserError(f"Run configuration: {error}") from error


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read a run configuration from YAML; `overrides` change some of its fields, as `fields.merged` says.

    Raises:
        UserError: the file is missing or not YAML, a field is unknown or wrong.
    """
    return config_from_dict(merged(load_yaml(Path(path)), overrides or {}))


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The resolved configuration, JSON-able."""
    return asdict(config)
