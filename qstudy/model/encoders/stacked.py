"""What encoders that lay frames side by side share: how frames go in, and how they come out."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from qstudy.model.encoders.base import Encoder
from qstudy.model.normalize import RunningMean
from qstudy.settings import FeatureSettings


class EncoderState(NamedTuple):
    """What a stream carries from chunk to chunk."""

    running_mean: RunningMean | None
    layers: Sequence[Any]


class StackedEncoder(Encoder):
    """Stack frames, run layers, concatenate their outputs.

    One joiner frame covers `stack * reduction` feature frames; frames left over at the end are not used (an utterance
    ends in silence anyway: `FeatureSettings.tail_ms`).
    """

    def __init__(self, features: FeatureSettings, size: int, stack: int, reduction: int, running_mean: int) -> None:
        """Args: H, size of a frame as the layers leave it; the others as those of the encoders."""
        super().__init__(features, running_mean)
        self.stack, self.reduction = stack, reduction
        self.chunk_frames = stack * reduction
        self.output_size = size * reduction
        self.output_ms = features.hop_ms * self.chunk_frames

    @abstractmethod
    def run(self, x: Tensor, states: Sequence[Any] | None, lengths: Tensor) -> tuple[Tensor, Sequence[Any]]:
        """All layers.

        Args:
            x: stacked frames (B, T, stack * D) float32.
            states: of each layer, or None at the start.
            lengths: valid stacked frames (B,) int64.

        Returns:
            Outputs (B, T, H), and each layer's state after the last frame.
        """

    def prepared(
        self, features: Tensor, lengths: Tensor, mean: RunningMean | None
    ) -> tuple[Tensor, RunningMean | None]:
        """Features (B, F, D) as they are stacked, normalized, without those left over, and the running mean."""
        used = features.shape[1] // self.chunk_frames * self.chunk_frames
        return self.normalize(features[:, :used], mean)

    def forward(
        self, features: Tensor, lengths: Tensor, state: EncoderState | None = None
    ) -> tuple[Tensor, Tensor, EncoderState | None]:
        x, mean = self.prepared(features, lengths, state.running_mean if state else None)
        x = x.reshape(len(x), x.shape[1] // self.stack, x.shape[2] * self.stack)  # (B, T, stack * D)
        x, after = self.run(x, state.layers if state else None, lengths // self.stack)
        x = x.reshape(len(x), x.shape[1] // self.reduction, self.output_size)
        return x, lengths // self.chunk_frames, EncoderState(mean, after) if self.streams else None
