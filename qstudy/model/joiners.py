"""Joiners: one encoder frame and one predictor vector in, one score per label out."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from qstudy.fields import Units
from qstudy.quant.layers import Linear, Rate


class Joiner(nn.Module, ABC):
    """The plug-in point: each side is projected once, then every pair is joined.

    Your own is called with the sizes of an encoder frame and of a predictor vector, V, the number of labels with blank,
    the milliseconds of audio per encoder frame, and its options.
    """

    encoder: nn.Module
    """Projects encoder frames (..., .)."""
    predictor: nn.Module
    """Projects predictor vectors (..., .)."""

    def forward(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """Every pair of encoded (B, T, .) and predicted (B, U + 1, .): logits (B, T, U + 1, V)."""
        return self.join(self.encoder(encoded).unsqueeze(2), self.predictor(predicted).unsqueeze(1))

    @abstractmethod
    def join(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """Already projected sides, broadcastable: logits (..., V)."""


class AdditiveJoiner(Joiner):
    """Project both sides, add, tanh, project to labels (Graves 2012, arXiv 1211.3711)."""

    def __init__(self, encoder: int, predictor: int, labels: int, frame_ms: float, hidden: Units = 128) -> None:
        """
        Args:
            encoder: size of an encoder frame.
            predictor: size of a predictor vector.
            labels: V, labels with blank.
            frame_ms: milliseconds of audio per encoder frame.
            hidden: size of the common space.
        """
        super().__init__()
        self.encoder = Linear(encoder, hidden, rate=Rate(every_ms=frame_ms))
        self.predictor = Linear(predictor, hidden, bias=False, rate=Rate(per_label=1))
        self.output = Linear(hidden, labels, rate=Rate(every_ms=frame_ms, per_label=1))

    def join(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        logits: Tensor = self.output(torch.tanh(encoded + predicted))
        return logits


JOINERS: dict[str, type[Joiner]] = {"additive": AdditiveJoiner}
