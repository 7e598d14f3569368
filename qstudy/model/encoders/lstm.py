"""The LSTM encoder: log-mel frames in, joiner frames out."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from qstudy.fields import Count, Dropout, Few, Units
from qstudy.model.encoders.base import Encoder
from qstudy.model.normalize import RunningMean
from qstudy.quant.arithmetic import LSTMState
from qstudy.quant.layers import LSTM, Rate
from qstudy.quant.stack import LSTMStack
from qstudy.settings import FeatureSettings


class EncoderState(NamedTuple):
    """What a stream carries from chunk to chunk."""

    running_mean: RunningMean | None
    layers: Sequence[LSTMState]


class LSTMEncoder(Encoder):
    """Stack frames, run unidirectional LSTM layers, concatenate their outputs.

    One joiner frame covers `stack * reduction` feature frames; frames left over at the end are not used (an utterance
    ends in silence anyway: `FeatureSettings.tail_ms`).
    """

    def __init__(
        self,
        features: FeatureSettings,
        hidden: Units = 256,
        layers: Few = 3,
        stack: Few = 3,
        reduction: Few = 3,
        running_mean: Count = 0,
        dropout: Dropout = 0.0,
    ) -> None:
        """
        Args:
            features: what the features are.
            hidden: H, size of each LSTM layer.
            layers: number of LSTM layers.
            stack: feature frames stacked into one LSTM frame.
            reduction: LSTM frames concatenated into one joiner frame.
            running_mean: prior frames of the causal per-utterance mean normalization; 0: none.
            dropout: of each layer's output, while training.
        """
        super().__init__(features, running_mean)
        self.stack, self.reduction = stack, reduction
        self.chunk_frames = stack * reduction
        self.output_size = hidden * reduction
        self.output_ms = features.hop_ms * self.chunk_frames
        sizes = [features.bins * stack] + [hidden] * (layers - 1)
        rate = Rate(every_ms=features.hop_ms * stack)
        self.lstm = LSTMStack([open_forget_gate(LSTM(size, hidden, rate)) for size in sizes], dropout)

    def forward(
        self, features: Tensor, lengths: Tensor, state: EncoderState | None = None
    ) -> tuple[Tensor, Tensor, EncoderState]:
        frames = features.shape[1] // self.chunk_frames
        x, mean = self.normalize(features[:, : frames * self.chunk_frames], state.running_mean if state else None)
        x = x.reshape(len(x), x.shape[1] // self.stack, x.shape[2] * self.stack)  # (B, LSTM frames, stack * D)
        x, after = self.lstm(x, state.layers if state else None)
        return x.reshape(len(x), frames, self.output_size), lengths // self.chunk_frames, EncoderState(mean, after)


@torch.no_grad()
def open_forget_gate(layer: LSTM) -> LSTM:
    """Start with the forget gate open, so that gradients reach far back (Jozefowicz et al. 2015)."""
    hidden = layer.hidden_size
    layer.bias_ih_l0.zero_()
    layer.bias_hh_l0.zero_()
    layer.bias_ih_l0[hidden : 2 * hidden] = 1.0
    return layer
