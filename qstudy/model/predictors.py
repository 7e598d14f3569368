"""Prediction networks: labels so far in, one vector per position out."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.fields import Few, Units
from qstudy.model.lstm import open_forget_gate
from qstudy.quant.conv import Conv1d
from qstudy.quant.layers import LSTM, Embedding, Linear, Rate, TiedEmbedding
from qstudy.quant.operators import LayerNorm, MatMul

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

    def tied_table(self) -> TiedEmbedding | None:
        """The table that is to be the joiner's output layer as well; None: the joiner has its own."""
        return None


class TablePredictor(Predictor):
    """A prediction network that begins with a table of labels, which may be tied to the joiner's output layer."""

    embedding: Embedding

    def __init__(self, labels: int, embedding: int, tied: bool, looks: int = 1) -> None:
        """Args: V labels with blank; size of a row; whether it is tied; rows looked up for each label."""
        super().__init__()
        table, rate = (labels, embedding), Rate(per_label=looks)
        self.embedding = TiedEmbedding(*table, looks) if tied else Embedding(*table, rate)

    def tied_table(self) -> TiedEmbedding | None:
        return self.embedding if isinstance(self.embedding, TiedEmbedding) else None


class LSTMPredictor(TablePredictor):
    """Embedding and one LSTM layer."""

    def __init__(self, labels: int, embedding: Units = 128, hidden: Units = 256, tied: bool = False) -> None:
        """Args: V labels with blank; size of the embedding; H of the LSTM; whether its table is the joiner's output."""
        super().__init__(labels, embedding, tied)
        self.output_size = hidden
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


class LastLabelsPredictor(TablePredictor):
    """A prediction network without recurrence: it sees the last few labels alone."""

    context: int
    """How many."""

    @abstractmethod
    def project(self, rows: Tensor) -> Tensor:
        """The last labels' rows of the table (B, U, context, D), oldest first: vectors (B, U, output_size)."""

    def forward(self, targets: Tensor) -> Tensor:
        padded = F.pad(targets, (self.context, 0), value=BLANK)
        return self.project(self.embedding(padded.unfold(1, self.context, 1)))

    def start(self, batch: int, device: torch.device) -> PredictorState:
        return (torch.full((1, batch, self.context), BLANK, device=device),)

    def advance(self, labels: Tensor, state: PredictorState) -> tuple[Tensor, PredictorState]:
        seen = torch.cat([state[0][0, :, 1:], labels.unsqueeze(1)], 1)
        return self.project(self.embedding(seen).unsqueeze(1))[:, 0], (seen.unsqueeze(0),)


class StatelessPredictor(LastLabelsPredictor):
    """The last few labels' embeddings side by side, one linear layer, tanh.

    Source: Ghodsi et al. 2020, "RNN-Transducer with stateless prediction network".
    """

    def __init__(
        self, labels: int, embedding: Units = 128, hidden: Units = 256, context: Few = 2, tied: bool = False
    ) -> None:
        """Args: V labels with blank; size of an embedding; size of the output; number of labels that are seen; whether
        the table is the joiner's output."""
        super().__init__(labels, embedding, tied, looks=context)
        self.output_size = hidden
        self.context = context
        self.projection = Linear(embedding * context, hidden, rate=Rate(per_label=1))

    def project(self, rows: Tensor) -> Tensor:
        return torch.tanh(self.projection(rows.flatten(-2)))


class WeightedPredictor(LastLabelsPredictor):
    """The last few labels' embeddings, averaged with weights by position; then a linear layer, Swish, LayerNorm.

    Each head has a vector per position; the weight of the embedding x_n there is its dot product with that vector p_hn.
    Averaged over heads and positions: sum over h and n of (x_n . p_hn) x_n, divided by H N. The weights are a product
    with a learnt matrix in which each position has its own rows (a grouped layer), the sum is a product of activations.

    Source: Botros et al. 2021, "Tied & reduced RNN-T decoder", arXiv 2109.07513; patent US20230298569A1, [0035]-[0050].
    """

    def __init__(
        self,
        labels: int,
        embedding: Units = 128,
        hidden: Units = 256,
        context: Few = 5,
        heads: Few = 4,
        tied: bool = False,
    ) -> None:
        """
        Args:
            labels: V, labels with blank.
            embedding: D, size of an embedding.
            hidden: size of the output.
            context: N, number of labels that are seen; before the first one, blanks.
            heads: H, weighted averages that are averaged in turn.
            tied: whether the table is the joiner's output layer.
        """
        super().__init__(labels, embedding, tied, looks=context)
        self.output_size = hidden
        self.context, self.heads = context, heads
        rate = Rate(per_label=1)
        self.positions = Conv1d(context * embedding, context * heads, 1, groups=context, bias=False, rate=rate)
        self.average = MatMul(context, embedding, rate=rate)
        self.projection = Linear(embedding, hidden, rate=rate)
        self.norm = LayerNorm(hidden, rate)

    def project(self, rows: Tensor) -> Tensor:
        by_head = self.positions(rows.flatten(-2).transpose(1, 2)).transpose(1, 2)  # (B, U, N * H)
        weights = by_head.unflatten(-1, (self.context, self.heads)).mean(-1) / self.context
        averaged = self.average(weights.unsqueeze(-2), rows).squeeze(-2)  # (B, U, D)
        vectors: Tensor = self.norm(F.silu(self.projection(averaged)))
        return vectors


PREDICTORS: dict[str, type[Predictor]] = {
    "lstm": LSTMPredictor,
    "stateless": StatelessPredictor,
    "weighted": WeightedPredictor,
}
