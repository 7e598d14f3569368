"""Prediction networks: labels so far in, one vector per position out."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.fields import Few, Units
from qstudy.model.encoders.lstm import open_forget_gate
from qstudy.quant.layers import LSTM, Embedding, Linear, Rate

BLANK = 0
"""The blank label; as an input it means "start of the utterance"."""

PredictorState = tuple[Tensor, ...]
"""Tensors whose second dimension is the batch: (1, B, H), so that decoders can pick and replace utterances."""


class Predictor(nn.Module, ABC):
    """The plug-in point: all that the joiner and the decoders ask of a prediction network.

    Your own is called with V, the number of labels with blank, and its options.
    """

    output_size: int
    """Size of a vector."""

    @abstractmethod
    def forward(self, targets: Tensor) -> Tensor:
        """Targets (B, U) int64 to vectors (B, U + 1, output_size); position 0 has seen no label."""

    @abstractmethod
    def start(self, batch: int, device: torch.device) -> PredictorState:
        """The state before the first label."""

    @abstractmethod
    def advance(self, labels: Tensor, state: PredictorState) -> tuple[Tensor, PredictorState]:
        """One label (B,) int64 (blank at the start) to one vector (B, output_size) and the state after it."""


class LSTMPredictor(Predictor):
    """Embedding and one LSTM layer."""

    def __init__(self, labels: int, embedding: Units = 128, hidden: Units = 256) -> None:
        """Args: V labels with blank; size of the embedding; H of the LSTM."""
        super().__init__()
        self.output_size = hidden
        self.embedding = Embedding(labels, embedding, Rate(per_label=1))
        self.lstm = open_forget_gate(LSTM(embedding, hidden, Rate(per_label=1)))

    def forward(self, targets: Tensor) -> Tensor:
        output: Tensor = self.lstm(self.embedding(F.pad(targets, (1, 0), value=BLANK)))[0]
        return output

    def start(self, batch: int, device: torch.device) -> PredictorState:
        zeros = torch.zeros(1, batch, self.output_size, device=device)
        return (zeros, zeros)

    def advance(self, labels: Tensor, state: PredictorState) -> tuple[Tensor, PredictorState]:
        output, after = self.lstm(self.embedding(labels).unsqueeze(1), (state[0], state[1]))
        return output[:, 0], after


class StatelessPredictor(Predictor):
    """The last few labels alone: their embeddings side by side, one linear layer, tanh.

    Source: Ghodsi et al. 2020, "RNN-Transducer with stateless prediction network".
    """

    def __init__(self, labels: int, embedding: Units = 128, hidden: Units = 256, context: Few = 2) -> None:
        """Args: V labels with blank; size of an embedding; size of the output; number of labels that are seen."""
        super().__init__()
        self.output_size = hidden
        self.context = context
        self.embedding = Embedding(labels, embedding, Rate(per_label=context))
        self.projection = Linear(embedding * context, hidden, rate=Rate(per_label=1))

    def forward(self, targets: Tensor) -> Tensor:
        padded = F.pad(targets, (self.context, 0), value=BLANK)
        return self._project(padded.unfold(1, self.context, 1))

    def start(self, batch: int, device: torch.device) -> PredictorState:
        return (torch.full((1, batch, self.context), BLANK, device=device),)

    def advance(self, labels: Tensor, state: PredictorState) -> tuple[Tensor, PredictorState]:
        seen = torch.cat([state[0][0, :, 1:], labels.unsqueeze(1)], 1)
        return self._project(seen), (seen.unsqueeze(0),)

    def _project(self, context: Tensor) -> Tensor:
        return torch.tanh(self.projection(self.embedding(context).flatten(-2)))


PREDICTORS: dict[str, type[Predictor]] = {"lstm": LSTMPredictor, "stateless": StatelessPredictor}
