"""What a model hears, what it is made of, how its training data are changed: plain data that imports without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qstudy.checks import number, share, shown, span, text, whole
from qstudy.errors import UserError

Range = tuple[float, float]


def named_part(where: str, value: Any) -> None:
    """Raise UserError unless `value` is `{name: ..., **options}`."""
    if not isinstance(value, Mapping):
        hint = f"{{name: {value}}}" if isinstance(value, str) and value.isidentifier() else "{name: NAME}"
        raise UserError(f"{where}: {shown(value)} must be a mapping, e.g. {hint}.")
    text(f"{where}.name", value.get("name"))


@dataclass(frozen=True)
class FeatureSettings:
    """What decides the features; stored with every model."""

    sample_rate: int = 16000
    """Samples per second; other audio is resampled."""
    bins: int = 40
    """Mel bins per frame."""
    window_ms: float = 25.0
    """Length of the Hann window."""
    hop_ms: float = 10.0
    """Distance between frames."""
    preemphasis: float = 0.97
    """Each sample minus this times the one before it."""
    low_hz: float = 0.0
    """Lower edge of the lowest mel bin."""
    high_hz: float = 8000.0
    """Upper edge of the highest mel bin."""
    tail_ms: float = 300.0
    """Silence put after an utterance, in which a late model emits its last word."""

    def __post_init__(self) -> None:
        whole("sample_rate", self.sample_rate, 1000, 192_000)
        whole("bins", self.bins, 3, 512)
        number("window_ms", self.window_ms, 1, 250)
        number("hop_ms", self.hop_ms, 1, 250)
        share("preemphasis", self.preemphasis)
        number("low_hz", self.low_hz, 0, 96_000)
        number("high_hz", self.high_hz, 0, 96_000)
        number("tail_ms", self.tail_ms, 0, 10_000)
        if not 0 <= self.low_hz < self.high_hz <= self.sample_rate / 2:
            raise UserError(
                f"low_hz {self.low_hz} and high_hz {self.high_hz} must satisfy "
                f"0 <= low_hz < high_hz <= {self.sample_rate / 2} (half of sample_rate)."
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


@dataclass
class ModelConfig:
    """Which parts the model is made of; each is `{name: ..., **options}`, or an import path of the user's own class."""

    encoder: dict[str, Any] = field(default_factory=lambda: {"name": "lstm"})
    """Encoder: `lstm` (hidden, layers, stack, reduction, running_mean, dropout)."""
    predictor: dict[str, Any] = field(default_factory=lambda: {"name": "lstm"})
    """Predictor: `lstm` (embedding, hidden) or `stateless` (embedding, hidden, context)."""
    joiner: dict[str, Any] = field(default_factory=dict)
    """Joiner: hidden."""

    def __post_init__(self) -> None:
        named_part("encoder", self.encoder)
        named_part("predictor", self.predictor)
        named_part("joiner", {"name": "joiner", **self.joiner})


@dataclass(frozen=True)
class AugmentSettings:
    """How often and how far; a probability of 0 switches a change off. Defaults suit few speakers."""

    speed: float = 0.8
    """Probability of another speed."""
    speed_range: Range = (0.8, 1.25)
    """Factor of the speed; the voice's pitch stays."""
    warp: float = 0.8
    """Probability of another length of the vocal tract (all frequencies scaled)."""
    warp_range: Range = (0.8, 1.25)
    """Factor of the frequencies; children are at 1.2 of their parents."""
    channel: float = 0.7
    """Probability of another microphone or room: a smooth curve over the mel bins."""
    channel_db: float = 4.0
    """Standard deviation of the curve's tilt; its faster cosines have less."""
    gain: float = 0.8
    """Probability of another loudness."""
    gain_range_db: Range = (-15.0, 10.0)
    """Change of loudness, dB."""
    noise: float = 0.5
    """Probability of stationary noise: white to brown."""
    noise_snr_db: Range = (5.0, 35.0)
    """Signal-to-noise ratio, dB, of powers summed over mel bins."""
    babble: float = 0.2
    """Probability of other utterances in the background."""
    babble_snr_db: Range = (10.0, 30.0)
    """Signal-to-babble ratio, dB."""
    babble_voices: int = 3
    """Utterances that are mixed."""
    bin_masks: int = 2
    """SpecAugment: bands of mel bins that are hidden."""
    bin_mask_share: float = 0.15
    """Widest band, as a share of all bins."""
    frame_masks: int = 2
    """SpecAugment: spans of time that are hidden."""
    frame_mask_ms: float = 100.0
    """Longest span; much longer ones hide whole digits."""
    mask: float = 0.6
    """Probability of each mask."""

    def __post_init__(self) -> None:
        for name in ("speed", "warp", "channel", "gain", "noise", "babble", "mask", "bin_mask_share"):
            share(name, getattr(self, name))
        for name in ("speed_range", "warp_range"):
            span(name, getattr(self, name), 0.1, 10)
        for name in ("gain_range_db", "noise_snr_db", "babble_snr_db"):
            span(name, getattr(self, name), -200, 200)
        number("channel_db", self.channel_db, 0, 100)
        number("frame_mask_ms", self.frame_mask_ms, 0, 100_000)
        whole("babble_voices", self.babble_voices, 1, 100)
        for name in ("bin_masks", "frame_masks"):
            whole(name, getattr(self, name), 0, 100)
