"""Language models: labels so far in, log-probabilities of the next label out."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

LanguageState = tuple[Tensor, ...]
"""Tensors whose second dimension is the hypothesis, as `PredictorState`'s is the batch."""


class LanguageModel(nn.Module, ABC):
    """What a search asks of a language model; its labels are the recognizer's."""

    labels: int
    """V, labels with blank."""

    @abstractmethod
    def start(self, hypotheses: int, device: torch.device) -> LanguageState:
        """The state before the first label."""

    @abstractmethod
    def advance(self, labels: Tensor, state: LanguageState) -> tuple[Tensor, LanguageState]:
        """One label (N,) int64, BLANK (0) at the start of the text, to the natural log-probabilities (N, V) float32 of
        the next label and the state after it. Column BLANK is the end of the text, so that every row sums to one."""
