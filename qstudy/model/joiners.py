"""Joiners: one encoder frame and one predictor vector in, one score per label out."""

from abc import ABC, abstractmethod
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from qstudy.errors import UserError
from qstudy.fields import Units
from qstudy.quant.arithmetic import Affine, Extremes
from qstudy.quant.layers import Linear, Rate, TiedEmbedding


class Joint(NamedTuple):
    """A joiner's parts, for a loss that wants few pairs at a time: tanh of both sides together, and an affine map."""

    encoded: Tensor
    """Projected (B, T, J)."""
    predicted: Tensor
    """Projected (B, U + 1, J)."""
    multiplied: bool
    """Whether the sides are multiplied, not added."""
    output: Affine


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

    def joint(self, encoded: Tensor, predicted: Tensor) -> Joint | None:
        """`forward` in parts, of the same arguments; None, the default: only `forward` knows how to join."""
        return None

    def tie(self, table: TiedEmbedding) -> None:
        """Let the predictor's table be the output layer.

        Raises:
            UserError: the sizes differ, or this joiner has no such layer.
        """
        raise UserError(f"model.predictor.tied: {type(self).__name__} ties no output layer; leave tied out.")


class Scores(nn.Module):
    """The output layer that is the predictor's table: it has no weights of its own."""

    def __init__(self, table: TiedEmbedding) -> None:
        super().__init__()
        self._table = (table,)  # in a tuple, so that it is not registered a second time

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) to scores (..., V)."""
        return self._table[0].scores(x)

    def affine(self, extremes: Extremes) -> Affine | None:
        """As a layer's."""
        return self._table[0].affine(extremes)

    def tanh(self, x: Tensor) -> Tensor:
        """As a layer's: the tanh of x (...), in the table's arithmetic."""
        return self._table[0].tanh(x)


class ProjectingJoiner(Joiner):
    """Project both sides into a common space, combine them there, tanh, project to labels."""

    predictor: Linear
    predictor_bias = False
    """Whether the projection of predictor vectors has a bias; the encoder's has one."""

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
        self.predictor = Linear(predictor, hidden, self.predictor_bias, Rate(per_label=1))
        self.hidden, self.rate = hidden, Rate(every_ms=frame_ms, per_label=1)
        self.output: Linear | Scores = Linear(hidden, labels, rate=self.rate)

    @abstractmethod
    def combine(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """Projected sides, broadcastable: (..., hidden)."""

    def join(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        logits: Tensor = self.output(self.output.tanh(self.combine(encoded, predicted)))
        return logits

    def joint(self, encoded: Tensor, predicted: Tensor) -> Joint | None:
        own = type(self)
        if own.combine not in MULTIPLIED or (own.join, own.forward) != (ProjectingJoiner.join, Joiner.forward):
            return None  # a joiner of the user's that changes one of ours
        left, right = self.encoder(encoded), self.predictor(predicted)
        output = self.output.affine(partial(self._extremes, left, right))
        return None if output is None else Joint(left, right, MULTIPLIED[own.combine], output)

    @torch.no_grad()
    def _extremes(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """Inputs of the output layer (B, 2, 2, J), with the least and greatest of all: sum, product and tanh are
        monotonic in each side."""
        left, right = (torch.stack(side.aminmax(dim=1), 1) for side in (encoded, predicted))
        return self.output.tanh(self.combine(left.unsqueeze(2), right.unsqueeze(1)))

    def tie(self, table: TiedEmbedding) -> None:
        if table.embedding_dim != self.hidden:
            raise UserError(
                f"model.predictor.tied: joiner.hidden ({self.hidden}) must equal predictor.embedding "
                f"({table.embedding_dim}), because one matrix serves both."
            )
        table.rate = self.rate
        self.output = Scores(table)


class AdditiveJoiner(ProjectingJoiner):
    """The sides are added (Graves 2012, arXiv 1211.3711)."""

    def combine(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        return encoded + predicted


class MultiplicativeJoiner(ProjectingJoiner):
    """The sides are multiplied, element by element (Saon et al. 2021, arXiv 2103.09935).

    The bias of the predictor's side starts at one: products of two small numbers would vanish, and their gradients with
    them; so at first the joiner lets the encoder's side through.
    """

    predictor_bias = True

    def __init__(self, encoder: int, predictor: int, labels: int, frame_ms: float, hidden: Units = 128) -> None:
        super().__init__(encoder, predictor, labels, frame_ms, hidden)
        nn.init.ones_(self.predictor.bias)

    def combine(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        return encoded * predicted


JOINERS: dict[str, type[Joiner]] = {"additive": AdditiveJoiner, "multiplicative": MultiplicativeJoiner}
MULTIPLIED = {AdditiveJoiner.combine: False, MultiplicativeJoiner.combine: True}
