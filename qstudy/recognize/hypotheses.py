"""Hypotheses of a beam as tensors: their scores, what their labels are, and what follows from the labels alone.

Letters: B utterances, K the beam, V labels with blank, J the joiner's space.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from qstudy.model import RNNT
from qstudy.model.language import LanguageState
from qstudy.model.predictors import BLANK, PredictorState
from qstudy.recognize.fusion import Fusion

NONE = float("-inf")
"""The score of a place that holds no hypothesis."""
ODD = -7046029254386353131  # 2^64 over the golden ratio, as a signed integer


def extended(keys: Tensor, labels: Tensor) -> Tensor:
    """Keys of label sequences with one more label: equal sequences have equal keys.

    Two different ones have the same with a probability of about 2^-64; so sequences need not be compared.
    """
    mixed = (keys + labels + 1) * ODD
    return mixed ^ ((mixed >> 32) & 0xFFFFFFFF)


class Slots(NamedTuple):
    """Places (B, N) for hypotheses, no two of which have the same labels."""

    score: Tensor
    """Natural logarithm, float64; NONE where the place is empty."""
    key: Tensor
    """Of the labels, int64."""
    node: Tensor
    """The last label in `LabelTree`, int64."""
    row: Tensor
    """In the `Context`, int64."""

    def pick(self, index: Tensor) -> "Slots":
        """The places (B, M) of each utterance, in that order."""
        return Slots(*(part.gather(1, index) for part in self))

    def of(self, utterances: Tensor) -> "Slots":
        """Those of some utterances."""
        return Slots(*(part[utterances] for part in self))

    def put(self, utterances: Tensor, values: "Slots") -> "Slots":
        """These, with some utterances replaced."""
        return Slots(*(part.index_copy(0, utterances, new) for part, new in zip(self, values, strict=True)))

    def beside(self, other: "Slots") -> "Slots":
        """The places of both."""
        return Slots(*(torch.cat(parts, 1) for parts in zip(self, other, strict=True)))

    def wide(self, places: int) -> "Slots":
        """With empty places behind, up to so many."""
        missing = places - self.score.shape[1]
        return self if missing <= 0 else self.beside(empty_slots(len(self.score), missing, self.score.device))


def empty_slots(utterances: int, places: int, device: torch.device) -> Slots:
    """Places without hypotheses."""
    score = torch.full((utterances, places), NONE, dtype=torch.float64, device=device)
    zeros = torch.zeros(utterances, places, dtype=torch.int64, device=device)
    return Slots(score, zeros, zeros, zeros)


@dataclass
class LabelTree:
    """The labels of all hypotheses, as back pointers: a hypothesis is the node of its last label; node 0 has none."""

    parents: list[int] = field(default_factory=lambda: [0])
    label: list[int] = field(default_factory=lambda: [BLANK])
    frame: list[int] = field(default_factory=lambda: [0])

    def grow(self, parents: Tensor, labels: Tensor, frames: Tensor) -> int:
        """Add nodes (N,); returns the first one's number."""
        first = len(self.parents)
        self.parents.extend(parents.tolist())
        self.label.extend(labels.tolist())
        self.frame.extend(frames.tolist())
        return first

    def read(self, node: int) -> tuple[list[int], list[int]]:
        """The labels up to a node, and the encoder frame of each."""
        labels, frames = [], []
        while node:
            labels.append(self.label[node])
            frames.append(self.frame[node])
            node = self.parents[node]
        return labels[::-1], frames[::-1]


@dataclass
class Context:
    """What follows from the labels of N hypotheses, computed once for each."""

    vector: Tensor
    """Projected predictor vectors (N, J)."""
    predictor: PredictorState
    """The prediction network after the last label, (., N, .) each."""
    language: Tensor
    """What language models and rewards add to the score of the next label (N, V) float32; (N, 0) without any."""
    models: LanguageState
    """The language models after the last label, (., N, .) each."""

    def pick(self, rows: Tensor) -> "Context":
        """Some of them, in this order."""
        return Context(
            self.vector[rows],
            tuple(part.index_select(1, rows) for part in self.predictor),
            self.language[rows],
            tuple(part.index_select(1, rows) for part in self.models),
        )


def join_contexts(parts: Sequence[Context]) -> Context:
    """One behind the other."""
    if len(parts) == 1:
        return parts[0]
    return Context(
        torch.cat([part.vector for part in parts]),
        tuple(torch.cat(each, 1) for each in zip(*(part.predictor for part in parts), strict=True)),
        torch.cat([part.language for part in parts]),
        tuple(torch.cat(each, 1) for each in zip(*(part.models for part in parts), strict=True)),
    )


def start_context(model: RNNT, fusion: Fusion, count: int, device: torch.device) -> Context:
    """Before the first label."""
    blank = torch.full((count,), BLANK, device=device)
    before = Context(
        torch.empty(0), model.predictor.start(count, device), torch.empty(0), fusion.start(count, device)
    )
    return advance(model, fusion, blank, before)


def advance(model: RNNT, fusion: Fusion, labels: Tensor, before: Context) -> Context:
    """One more label (N,) of each: one call of the prediction network and of each language model."""
    vector, predictor = model.predictor.advance(labels, before.predictor)
    language, models = fusion.advance(labels, before.models)
    return Context(model.joiner.predictor(vector), predictor, language, models)
