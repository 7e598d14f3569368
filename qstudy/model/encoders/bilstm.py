"""The bidirectional LSTM encoder: it hears the whole utterance before its first frame."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.fields import Count, Dropout, Few, Units
from qstudy.model.encoders.rates import after_end
from qstudy.model.encoders.stacked import StackedEncoder
from qstudy.model.lstm import open_forget_gate
from qstudy.model.normalize import RunningMean
from qstudy.quant.layers import LSTM, Rate
from qstudy.settings import FeatureSettings


class BidirectionalLayer(nn.Module):
    """One LSTM forward, one backward, their outputs side by side (Schuster & Paliwal 1997)."""

    def __init__(self, inputs: int, hidden: int, rate: Rate) -> None:
        """Args: size of an input frame; H of each direction; how often both run."""
        super().__init__()
        self.forward_lstm = open_forget_gate(LSTM(inputs, hidden, rate))
        self.backward_lstm = open_forget_gate(LSTM(inputs, hidden, rate))

    def forward(self, x: Tensor, turned: Tensor) -> Tensor:
        """x (B, T, inputs), and the order of frames (B, T) in which it is turned around: (B, T, 2 H)."""
        backward = in_order(self.backward_lstm(in_order(x, turned))[0], turned)
        return torch.cat([self.forward_lstm(x)[0], backward], 2)


class BiLSTMEncoder(StackedEncoder):
    """Stack frames, run bidirectional LSTM layers, concatenate their outputs.

    The backward direction starts at each utterance's own last frame, so that padding changes nothing.
    """

    streams = False

    def __init__(
        self,
        features: FeatureSettings,
        hidden: Units = 192,
        layers: Few = 3,
        stack: Few = 3,
        reduction: Few = 3,
        deltas: bool = False,
        running_mean: Count = 0,
        dropout: Dropout = 0.0,
    ) -> None:
        """
        Args:
            features: what the features are.
            hidden: H, size of each LSTM in one direction.
            layers: number of bidirectional layers.
            stack: feature frames stacked into one LSTM frame.
            reduction: LSTM frames concatenated into one joiner frame.
            deltas: whether first and second differences over time stand beside the features.
            running_mean: prior frames of the causal per-utterance mean normalization; 0: none.
            dropout: of each layer's output, while training.
        """
        super().__init__(features, 2 * hidden, stack, reduction, running_mean)
        self.deltas, self.dropout = deltas, dropout
        sizes = [features.bins * (3 if deltas else 1) * stack] + [2 * hidden] * (layers - 1)
        rate = after_end(features.hop_ms * stack)
        self.layers = nn.ModuleList(BidirectionalLayer(size, hidden, rate) for size in sizes)

    def prepared(self, features: Tensor, lengths: Tensor, mean: RunningMean | None) -> tuple[Tensor, None]:
        x, _ = self.normalize(features)
        if self.deltas:  # which see what is left over
            x = with_deltas(x, lengths)
        return x[:, : x.shape[1] // self.chunk_frames * self.chunk_frames], None

    def run(self, x: Tensor, states: Sequence[Any] | None, lengths: Tensor) -> tuple[Tensor, Sequence[Any]]:
        turned = turned_around(lengths // self.reduction * self.reduction, x.shape[1])
        for layer in self.layers:
            x = F.dropout(layer(x, turned), self.dropout, self.training)
        return x, ()


def turned_around(lengths: Tensor, frames: int) -> Tensor:
    """The order (B, frames) int64 in which the first `lengths` (B,) frames run backward, and padding stays behind them;
    it is its own inverse."""
    places = torch.arange(frames, device=lengths.device)
    backward = lengths.unsqueeze(1) - 1 - places
    return torch.where(backward >= 0, backward, places)


def in_order(x: Tensor, order: Tensor) -> Tensor:
    """The frames of x (B, T, D) in an order (B, T)."""
    return x.gather(1, order.unsqueeze(2).expand(-1, -1, x.shape[2]))


def with_deltas(x: Tensor, lengths: Tensor) -> Tensor:
    """x (B, T, D) and its first and second differences over time: (B, T, 3 D).

    Differences are slopes of a straight line through five frames; at both ends the outermost frame is repeated (HTK,
    Young et al., "The HTK Book", equation 5.16).
    """
    last = (lengths - 1).clamp_min(0).unsqueeze(1)
    held = torch.minimum(torch.arange(x.shape[1], device=x.device).expand(len(x), -1), last)
    parts = [in_order(x, held)]
    for _ in range(2):
        parts.append(in_order(slopes(parts[-1]), held))
    return torch.cat(parts, 2)


def slopes(x: Tensor) -> Tensor:
    """Of a straight line through five frames, at each frame of x (B, T, D)."""
    padded = torch.cat([x[:, :1], x[:, :1], x, x[:, -1:], x[:, -1:]], 1)
    wide, narrow = padded[:, 4:] - padded[:, :-4], padded[:, 3:-1] - padded[:, 1:-3]
    return (2 * wide + narrow) / 10
