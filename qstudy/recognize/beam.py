"""What beam searches share: how hypotheses begin, get labels, are scored and read.

Letters: B utterances, K the beam, V labels with blank, J the joiner's space.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from qstudy.errors import UserError
from qstudy.model import RNNT
from qstudy.model.predictors import BLANK
from qstudy.recognize.contexts import Contexts
from qstudy.recognize.decoder import Decoder, Hypothesis
from qstudy.recognize.fusion import Fusion
from qstudy.recognize.kernels import HYPOTHESIS
from qstudy.recognize.options import MAX_LABELS_PER_FRAME

Hypotheses = npt.NDArray[Any]
"""Records, see `kernels.HYPOTHESIS`."""
ROOM = 4096
"""Nodes for which it is not worth while to look who needs them."""


@dataclass
class LabelTree:
    """The labels of all hypotheses, as back pointers: a hypothesis is the node of its last label; node 0 has none. A
    node stands behind its parent."""

    parents: list[int] = field(default_factory=lambda: [0])
    labels: list[int] = field(default_factory=lambda: [BLANK])
    frames: list[int] = field(default_factory=lambda: [0])
    kept: int = 1
    """Nodes when those that nobody needed went the last time."""

    @property
    def is_full(self) -> bool:
        """Whether there are twice as many as then: going through all of them costs each new one the same."""
        return len(self.parents) > 2 * self.kept + ROOM

    def keep(self, nodes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Let all go but these and those before them; returns the new node of each old one that is kept."""
        needed = bytearray(len(self.parents))
        for node in (0, *nodes.tolist()):
            needed[node] = 1
        for node in range(len(needed) - 1, 0, -1):
            if needed[node]:
                needed[self.parents[node]] = 1
        places = np.frombuffer(needed, np.uint8).cumsum(dtype=np.int64) - 1
        self.parents = places[list(compress(self.parents, needed))].tolist()
        self.labels, self.frames = list(compress(self.labels, needed)), list(compress(self.frames, needed))
        self.kept = len(self.parents)
        return places

    def grow(self, new: Hypotheses) -> npt.NDArray[np.int64]:
        """Add the last labels of hypotheses (N,), which hold their parents' nodes; returns their own."""
        first = len(self.parents)
        self.parents.extend(new["node"].tolist())
        self.labels.extend(new["last"].tolist())
        self.frames.extend(new["frame"].tolist())
        return np.arange(first, first + len(new))

    def read(self, node: int) -> tuple[list[int], list[int]]:
        """The labels up to a node, and the encoder frame of each."""
        labels, frames = [], []
        while node:
            labels.append(self.labels[node])
            frames.append(self.frames[node])
            node = self.parents[node]
        return labels[::-1], frames[::-1]


class BeamState:
    """What a stream carries from chunk to chunk."""

    def __init__(self, contexts: Contexts, batch: int, beam: int) -> None:
        """One hypothesis per utterance, without labels."""
        self.kept: Hypotheses = np.zeros((batch, beam), HYPOTHESIS)
        """The hypotheses (B, K), best first."""
        self.kept["utterance"] = np.arange(batch)[:, None]
        self.numbers = np.ones(batch, np.int64)
        """How many there are (B,)."""
        self.contexts = contexts
        """What follows from their labels."""
        self.tree = LabelTree()
        """Their labels."""
        self.expansions = 0
        """How often the joiner was asked."""

    def of(self, utterances: npt.NDArray[Any]) -> Hypotheses:
        """The hypotheses (N,) of some utterances (B,) bool, side by side."""
        here = np.arange(self.kept.shape[1]) < (self.numbers * utterances)[:, None]
        found: Hypotheses = self.kept[here]
        return found

    def alive(self) -> Sequence[Hypotheses]:
        """All hypotheses that there are, in arrays of any shape."""
        return (self.kept,)

    def forget(self) -> None:
        """Let go of the labels that only hypotheses had that were dropped, if they are many."""
        if self.tree.is_full:
            places = self.tree.keep(np.concatenate([each["node"].ravel() for each in self.alive()]))
            for each in self.alive():
                each["node"] = places[each["node"]]


class BeamSearch(Decoder):
    """Batched over hypotheses and utterances: one call of the joiner per expansion, and one of the prediction network
    and of each language model for all hypotheses that got a label."""

    def __init__(self, beam: int, fusion: Fusion | None = None, max_labels: int = MAX_LABELS_PER_FRAME) -> None:
        """Args: K, hypotheses that are kept; what language models add; the most labels that a frame can have."""
        self.beam, self.fusion, self.max_labels = beam, fusion or Fusion(), max_labels

    def labels(self, state: Any) -> list[list[int]]:
        return [state.tree.read(node)[0] for node in state.kept["node"][:, 0].tolist()]

    def scores(
        self, model: RNNT, frames: Tensor, hypotheses: Hypotheses, state: BeamState
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Of the next labels of hypotheses (N,), each at a frame (N, J): the logits (N, V), and what language models
        add (N, V) or (N, 1)."""
        rows = hypotheses["row"].copy()
        state.expansions += 1
        logits = model.joiner.join(frames, state.contexts.vectors(rows))
        return logits.cpu().numpy(), state.contexts.language(rows).cpu().numpy()

    def grow(self, new: Hypotheses, state: BeamState) -> None:
        """Give hypotheses (N,) that have got a label their own nodes and rows, in place of their parents'."""
        rows = state.contexts.advance(*(new[field].copy() for field in ("key", "last", "row")))
        new["node"], new["row"] = state.tree.grow(new), rows

    def at_the_end(self, hypotheses: Hypotheses, contexts: Contexts) -> Hypotheses:
        """Hypotheses (N,) if nothing follows."""
        over = hypotheses.copy()
        over["score"] += contexts.language(over["row"].copy())[:, BLANK].cpu().numpy()
        return over


def not_numbers() -> UserError:
    """What is said of NaN."""
    return UserError("model: its scores are not numbers (NaN); train or export it again.")


def read(hypotheses: Hypotheses, tree: LabelTree) -> list[Hypothesis]:
    """The hypotheses (N,) of one utterance, best first."""
    ordered = hypotheses[np.argsort(-hypotheses["score"], kind="stable")]
    found = [(score, *tree.read(node)) for score, node in zip(ordered["score"], ordered["node"], strict=True)]
    return [Hypothesis(labels, float(score), frames) for score, labels, frames in found] or [Hypothesis([])]
