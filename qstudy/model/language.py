"""Language models: labels so far in, log-probabilities of the next label out.

N hypotheses, U labels, V labels with blank, L layers, H hidden size.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.bits import LayerShape
from qstudy.errors import UserError
from qstudy.model.lstm import open_forget_gate
from qstudy.model.predictors import BLANK
from qstudy.quant.layers import LSTM, Embedding, Linear, Rate
from qstudy.quant.packed.program import StackStates
from qstudy.quant.stack import LSTMStack
from qstudy.quant.state import layer_shapes
from qstudy.settings import LanguageModelConfig

LanguageState = tuple[Tensor, ...]
"""Tensors whose second dimension is the hypothesis, as `PredictorState`'s is the batch."""


class LanguageModel(nn.Module, ABC):
    """Labels so far in, log-probabilities of the next label out. Labels are the recognizer's (V with blank)."""

    labels: int
    """V."""
    name: str = "The language model"
    """What messages call it: its file, where it has one."""

    @abstractmethod
    def start(self, hypotheses: int, device: torch.device) -> LanguageState:
        """The state before the first label."""

    @abstractmethod
    def advance(self, labels: Tensor, state: LanguageState) -> tuple[Tensor, LanguageState]:
        """What may follow one more label of each hypothesis.

        Args:
            labels: (N,) int64; BLANK at the start of a text.
            state: before it.

        Returns:
            Natural log-probabilities (N, V) float32 of the next label, and the state after. Column BLANK is the end of
            the text, so that every row sums to one.
        """


def require_numbers(model: LanguageModel, log_probs: Tensor) -> None:
    """Raise UserError where a log-probability is NaN or infinitely large; of an impossible label it is -inf."""
    if not bool((log_probs < math.inf).all()):
        raise UserError(f"{model.name} gives log-probabilities that are not numbers (NaN); train or export it again.")


class LSTMLanguageModel(LanguageModel):
    """Embedding, LSTM layers, and a linear layer; as large as Fasoli et al. 2022 (arXiv 2206.07882) with L = 2 and
    H = 2048."""

    def __init__(self, labels: int, config: LanguageModelConfig) -> None:
        """Args: V labels with blank; sizes."""
        super().__init__()
        self.labels, rate = labels, Rate(per_label=1)
        sizes = [config.embedding] + [config.hidden] * (config.layers - 1)
        self.embedding = Embedding(labels, config.embedding, rate)
        self.lstm = LSTMStack([open_forget_gate(LSTM(size, config.hidden, rate)) for size in sizes], config.dropout)
        self.output = Linear(config.hidden, labels, rate=rate)
        self.hidden = config.hidden

    def forward(self, targets: Tensor) -> Tensor:
        """Targets (N, U) int64, padded with anything valid, to logits (N, U + 1, V); position 0 has seen no label."""
        logits: Tensor = self.output(self.lstm(self.embedding(F.pad(targets, (1, 0), value=BLANK)), None)[0])
        return logits

    def start(self, hypotheses: int, device: torch.device) -> LanguageState:
        zeros = torch.zeros(len(self.lstm), hypotheses, self.hidden, device=device)
        return (zeros, zeros)

    def advance(self, labels: Tensor, state: LanguageState) -> tuple[Tensor, LanguageState]:
        vectors, after = self.lstm(self.embedding(labels).unsqueeze(1), StackStates(torch.stack(state)))
        h, c = StackStates.tensor_of(after)
        return F.log_softmax(self.output(vectors[:, 0]).float(), -1), (h, c)

    def shapes(self) -> list[LayerShape]:
        """What size and speed depend on, layer by layer, in the model's order: every layer runs once per label."""
        return layer_shapes(self, lambda _name: Rate(per_label=1))
