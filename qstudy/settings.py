"""What a model hears, what it is made of, how its training data are changed: plain data that imports without torch."""

from dataclasses import InitVar, dataclass, field, fields
from typing import Annotated, Any

from annotated_types import Ge, Le

from qstudy.errors import UserError
from qstudy.fields import Dropout, Few, Share, Text, Units, check_fields, checked, merged
from qstudy.presets import load_preset

Hertz = Annotated[float, Ge(0), Le(96_000)]
Frame = Annotated[float, Ge(1), Le(250)]
Factor = Annotated[float, Ge(0.1), Le(10)]
Decibel = Annotated[float, Ge(-200), Le(200)]
Masks = Annotated[int, Ge(0), Le(100)]


def named_part(where: str, value: Any) -> None:
    """Raise UserError unless `value` is `{name: ..., **options}`."""
    checked(dict[str, Any], value, where)
    checked(Text, value.get("name"), f"{where}.name")


@dataclass(frozen=True)
class FeatureSettings:
    """What decides the features; stored with every model."""

    sample_rate: Annotated[int, Ge(1000), Le(192_000)] = 16000
    """Samples per second; other audio is resampled."""
    bins: Annotated[int, Ge(3), Le(512)] = 40
    """Mel bins per frame."""
    window_ms: Frame = 25.0
    """Length of the Hann window."""
    hop_ms: Frame = 10.0
    """Distance between frames."""
    preemphasis: Share = 0.97
    """Each sample minus this times the one before it."""
    low_hz: Hertz = 0.0
    """Lower edge of the lowest mel bin."""
    high_hz: Hertz = 8000.0
    """Upper edge of the highest mel bin."""
    tail_ms: Annotated[float, Ge(0), Le(10_000)] = 300.0
    """Silence put after an utterance, in which a late model emits its last word."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.low_hz < self.high_hz <= self.sample_rate / 2:
            raise UserError(
                f"low_hz {self.low_hz} and high_hz {self.high_hz} must satisfy "
                f"0 <= low_hz < high_hz <= {self.sample_rate / 2} (half of sample_rate)."
            )
        if self.high_hz - self.low_hz < self.bins:
            raise UserError(
                f"bins {self.bins}: low_hz {self.low_hz} and high_hz {self.high_hz} must be a Hz apart per bin."
            )
        if self.hop_ms > self.window_ms:
            raise UserError(f"hop_ms {self.hop_ms} must be at most window_ms {self.window_ms}.")

    @property
    def window(self) -> int:
        """Samples per window."""
        return int(self.sample_rate * self.window_ms / 1000)

    @property
    def hop(self) -> int:
        """Samples between frames."""
        return int(self.sample_rate * self.hop_ms / 1000)

    @property
    def tail(self) -> int:
        """Samples of silence after an utterance."""
        return int(self.sample_rate * self.tail_ms / 1000)

    @property
    def tail_frames(self) -> int:
        """Frames that the tail adds."""
        return self.tail // self.hop


DEFAULT_PARTS: dict[str, dict[str, Any]] = {"encoder": {"name": "lstm"}, "predictor": {"name": "lstm"}, "joiner": {}}


@dataclass
class ModelConfig:
    """Which parts the model is made of; each is `{name: ..., **options}`, or an import path of the user's own class.

    With a preset, what is given of a part changes the preset's; without one, encoder and predictor are `lstm`.
    """

    encoder: dict[str, Any] = field(default_factory=dict)
    """Encoder: `lstm` (hidden, layers, stack, reduction, running_mean, dropout), `bilstm` (the same, and deltas),
    `conformer` (size, blocks, heads, expansion, kernel, left, right, causal, position, conv_norm, stack, reduction,
    running_mean, dropout), `cascaded` (first, second, first_weight) or `amortized` (those of `lstm`, and branch, rank,
    keep, strength, branch_from, hard_from, temperature, last_temperature, expected_share)."""
    predictor: dict[str, Any] = field(default_factory=dict)
    """Predictor: `lstm` (embedding, hidden, tied), `stateless` (embedding, hidden, context, tied) or `weighted`
    (embedding, hidden, context, heads, tied)."""
    joiner: dict[str, Any] = field(default_factory=dict)
    """Joiner: `additive` (hidden) or `multiplicative` (hidden); without a name it is additive."""
    preset: InitVar[Text | None] = None
    """A model by its name, in place of what was configured before: amnet-lowrank, amnet-sparse, bilstm, bilstm-int4,
    cascaded, conformer-s, lstm, lstm-small. `qstudy presets` describes them."""

    def __post_init__(self, preset: str | None) -> None:
        checked(Text | None, preset, "preset")
        check_fields(self)
        base = load_preset(preset).parts if preset else DEFAULT_PARTS
        self.encoder = merged(base["encoder"], self.encoder)
        self.predictor = merged(base["predictor"], self.predictor)
        self.joiner = merged(base["joiner"], self.joiner)
        named_part("encoder", self.encoder)
        named_part("predictor", self.predictor)
        named_part("joiner", {"name": "additive", **self.joiner})


@dataclass(frozen=True)
class LanguageModelConfig:
    """How large a language model is: an embedding, LSTM layers, a linear layer to the labels."""

    embedding: Units = 128
    """Size of a label's row."""
    hidden: Units = 512
    """H, size of each LSTM layer."""
    layers: Few = 2
    """LSTM layers."""
    dropout: Dropout = 0.0
    """Of each layer's output, while training."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class AugmentSettings:
    """How often and how far; a probability of 0 switches a change off. Defaults suit few speakers."""

    speed: Share = 0.8
    """Probability of another speed."""
    speed_range: tuple[Factor, Factor] = (0.8, 1.25)
    """Factor of the speed; the voice's pitch stays."""
    warp: Share = 0.8
    """Probability of another length of the vocal tract (all frequencies scaled)."""
    warp_range: tuple[Factor, Factor] = (0.8, 1.25)
    """Factor of the frequencies; children are at 1.2 of their parents."""
    channel: Share = 0.7
    """Probability of another microphone or room: a smooth curve over the mel bins."""
    channel_db: Annotated[float, Ge(0), Le(100)] = 4.0
    """Standard deviation of the curve's tilt; its faster cosines have less."""
    gain: Share = 0.8
    """Probability of another loudness."""
    gain_range_db: tuple[Decibel, Decibel] = (-15.0, 10.0)
    """Change of loudness, dB."""
    noise: Share = 0.5
    """Probability of stationary noise: white to brown."""
    noise_snr_db: tuple[Decibel, Decibel] = (5.0, 35.0)
    """Signal-to-noise ratio, dB, of powers summed over mel bins."""
    babble: Share = 0.2
    """Probability of other utterances in the background."""
    babble_snr_db: tuple[Decibel, Decibel] = (10.0, 30.0)
    """Signal-to-babble ratio, dB."""
    babble_voices: Annotated[int, Ge(1), Le(100)] = 3
    """Utterances that are mixed."""
    bin_masks: Masks = 2
    """SpecAugment: bands of mel bins that are hidden."""
    bin_mask_share: Share = 0.15
    """Widest band, as a share of all bins."""
    frame_masks: Masks = 2
    """SpecAugment: spans of time that are hidden."""
    frame_mask_ms: Annotated[float, Ge(0), Le(100_000)] = 100.0
    """Longest span; much longer ones hide whole digits."""
    mask: Share = 0.6
    """Probability of each mask."""

    def __post_init__(self) -> None:
        check_fields(self)
        for each in fields(self):
            ends = getattr(self, each.name)
            if isinstance(ends, tuple) and ends[0] > ends[1]:
                raise UserError(f"{each.name}: {ends} must begin with the smaller number.")
