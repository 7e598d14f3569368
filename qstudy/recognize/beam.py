"""What beam searches share: how hypotheses begin, get labels, and end. Letters as in `hypotheses.py`."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qstudy.errors import UserError
from qstudy.model import RNNT
from qstudy.model.predictors import BLANK
from qstudy.recognize.decoder import Decoder, Hypothesis
from qstudy.recognize.fusion import Fusion
from qstudy.recognize.greedy import MAX_LABELS_PER_FRAME
from qstudy.recognize.hypotheses import (
    NONE,
    Context,
    LabelTree,
    Slots,
    advance,
    empty_slots,
    extended,
    start_context,
)


@dataclass
class BeamState:
    """What a stream carries from chunk to chunk."""

    slots: Slots
    """The hypotheses (B, K); the k-th of utterance b has row b K + k."""
    context: Context
    """B K rows."""
    tree: LabelTree
    """The labels of all hypotheses."""
    clock: Tensor
    """Frames so far (B,) int64."""


class BeamSearch(Decoder):
    """Batched over hypotheses and utterances: one call of the joiner per expansion, and one of the prediction network
    and of each language model for all hypotheses that got a label."""

    def __init__(self, beam: int, fusion: Fusion | None = None, max_labels: int = MAX_LABELS_PER_FRAME) -> None:
        """Args: K, hypotheses that are kept; what language models add; the most labels that a frame can have."""
        self.beam, self.fusion, self.max_labels = beam, fusion or Fusion(), max_labels

    def begin(self, model: RNNT, batch: int, device: torch.device) -> BeamState:
        """One hypothesis per utterance, without labels."""
        slots = empty_slots(batch, self.beam, device)
        slots.score[:, 0] = 0.0
        context = start_context(model, self.fusion, 1, device).pick(slots.row.flatten())
        clock = torch.zeros(batch, dtype=torch.int64, device=device)
        return BeamState(slots._replace(row=own_rows(slots)), context, LabelTree(), clock)

    def log_probs(self, model: RNNT, frames: Tensor, vectors: Tensor) -> Tensor:
        """Joined pairs (B, K, J), or what broadcasts to them: (B, K, V) float64.

        Doubles, so that the best of two logits stays the best, whatever the score it is added to.

        Raises:
            UserError: the model's scores are not numbers.
        """
        found = torch.log_softmax(model.joiner.join(frames, vectors), -1, dtype=torch.float64)
        if bool(found.isnan().any()):
            raise UserError("model: its scores are not numbers (NaN); train or export it again.")
        return found

    def label_scores(self, log_probs: Tensor, language: Tensor) -> Tensor:
        """What each next label adds (B, K, V), language models included; the blank is none."""
        added = log_probs + language + self.fusion.reward
        added[..., BLANK] = NONE
        return added

    def grow(self, model: RNNT, state: BeamState, parents: Slots, context: Context, new: "Labels") -> "Grown":
        """Give hypotheses a label each.

        Args:
            model: the transducer.
            state: whose tree grows.
            parents: (B, K); their rows are those of `context`.
            context: of the parents.
            new: (B, M).
        """
        alive = new.score > NONE
        nodes, rows, keys = (part.gather(1, new.parent) for part in (parents.node, parents.row, parents.key))
        after = advance(model, self.fusion, new.label[alive], context.pick(rows[alive]))
        first = state.tree.grow(nodes[alive], new.label[alive], new.frame[alive])
        order = (alive.flatten().cumsum(0) - 1).clamp_min(0).view_as(alive)
        return Grown(Slots(new.score, extended(keys, new.label), first + order, order), after)

    def at_the_end(self, slots: Slots, context: Context) -> Slots:
        """The hypotheses if nothing follows, best first."""
        score = slots.score + context.language[slots.row, BLANK]
        return slots._replace(score=score).pick(score.argsort(dim=1, descending=True, stable=True))


@dataclass
class Labels:
    """The next labels of hypotheses, (B, M) each."""

    score: Tensor
    """Of the hypothesis with the label, float64; NONE: there is none."""
    parent: Tensor
    """Place of the hypothesis that gets it."""
    label: Tensor
    """The label."""
    frame: Tensor
    """Where it is, from the beginning of the utterance."""

    def of(self, utterances: Tensor) -> "Labels":
        """Those of some utterances."""
        return Labels(*(part[utterances] for part in (self.score, self.parent, self.label, self.frame)))

    def above(self, worst: Tensor) -> "Labels":
        """Without those whose score is less than (B, 1)."""
        return replace(self, score=torch.where(self.score < worst, NONE, self.score))


@dataclass
class Grown:
    """Hypotheses that got a label."""

    slots: Slots
    """(B, M); rows are those of `context`."""
    context: Context


def own_rows(slots: Slots) -> Tensor:
    """Row b K + k for the k-th place of utterance b."""
    return torch.arange(slots.row.numel(), device=slots.row.device).view_as(slots.row)


def read(slots: Slots, tree: LabelTree) -> list[list[Hypothesis]]:
    """The hypotheses of each utterance in the order of their places, the first of them at least."""
    found = []
    for scores, nodes in zip(slots.score.tolist(), slots.node.tolist(), strict=True):
        count = max(sum(score > NONE for score in scores), 1)
        read = [(score, *tree.read(node)) for score, node in zip(scores[:count], nodes[:count], strict=True)]
        found.append([Hypothesis(labels, score, frames) for score, labels, frames in read])
    return found
