"""Time-synchronous beam search: all hypotheses have seen the same frames."""

from typing import Any, Literal

import torch
from torch import Tensor

from qstudy.model import RNNT
from qstudy.model.predictors import BLANK
from qstudy.recognize.beam import BeamSearch, BeamState, Grown, Labels, own_rows, read
from qstudy.recognize.decoder import Hypothesis
from qstudy.recognize.fusion import Fusion
from qstudy.recognize.greedy import MAX_LABELS_PER_FRAME
from qstudy.recognize.hypotheses import NONE, Context, Slots, empty_slots, join_contexts

Prune = Literal["expansion", "frame"]
"""When hypotheses that have left a frame compete with those that may get more labels in it."""


class TimeSynchronous(BeamSearch):
    """In every frame, hypotheses get none, one, or up to `max_labels` labels, then a blank. Those that are equal in
    their labels after the blank are one, whose probability is the sum of theirs.

    With `prune="frame"`, those that wait behind the blank are compared when all have arrived, as
    `torchaudio.models.RNNTBeamSearch` does. With `prune="expansion"`, a beam is kept of those that wait and those that
    go on, after each label; then a beam of one is greedy search. With `max_labels` 1 it is what others call modified
    beam search.

    Source: Graves 2012, arXiv 1211.3711; a bounded number of expansions: Kim et al. 2020, "Accelerating RNN transducer
    inference via adaptive expansion search", IEEE Signal Processing Letters 27.
    """

    def __init__(
        self,
        beam: int,
        fusion: Fusion | None = None,
        max_labels: int = MAX_LABELS_PER_FRAME,
        prune: Prune = "expansion",
    ) -> None:
        """Args: as `BeamSearch`; when hypotheses compete."""
        super().__init__(beam, fusion, max_labels)
        self.prune = prune

    @torch.no_grad()
    def accept(self, model: RNNT, encoded: Tensor, lengths: Tensor, state: Any = None) -> BeamState:
        state = state or self.begin(model, len(encoded), encoded.device)
        frames = model.joiner.encoder(encoded)  # (B, T, J)
        for t in range(int(lengths.max())):
            who = (lengths > t).nonzero()[:, 0]
            self._frame(model, frames[who, t], who, state)
        return state

    def labels(self, state: Any) -> list[list[int]]:
        return [found[0].labels for found in read(state.slots, state.tree)]

    @torch.no_grad()
    def finish(self, model: RNNT, state: Any) -> list[list[Hypothesis]]:
        return read(self.at_the_end(state.slots, state.context), state.tree)

    def _frame(self, model: RNNT, frame: Tensor, who: Tensor, state: BeamState) -> None:
        """One frame (b, J) of the utterances `who`."""
        growing, parts, before = Grown(state.slots.of(who), state.context), [state.context], 0
        inside = torch.arange(len(who), device=who.device)  # those of `who` with hypotheses that may get a label
        waiting = empty_slots(len(who), 0, who.device)  # behind the blank; rows count through all parts
        for emitted in range(self.max_labels + 1):
            slots, context = growing.slots, growing.context
            log_probs = self.log_probs(model, frame[inside].unsqueeze(1), context.vector[slots.row])
            behind = slots._replace(score=slots.score + log_probs[..., BLANK], row=slots.row + before)
            waiting = merged(waiting, behind, inside)
            if emitted == self.max_labels:
                break
            new = self._best(slots, self.label_scores(log_probs, context.language[slots.row]), state.clock[who[inside]])
            waiting, new = self._prune(waiting, new, inside)
            some = (new.score > NONE).any(1)
            if not bool(some.any()):
                break
            growing, inside = self.grow(model, state, slots.of(some), context, new.of(some)), inside[some]
            before += len(context.vector)
            parts.append(growing.context)
        self._next(state, who, self._kept(waiting), join_contexts(parts))

    def _best(self, slots: Slots, added: Tensor, frames: Tensor) -> Labels:
        """The best labels (b, K) of hypotheses (b, K), by what each adds (b, K, V); frames (b,)."""
        scores = (slots.score.unsqueeze(-1) + added).flatten(1)
        best, index = scores.topk(min(self.beam, scores.shape[1]))
        size = added.shape[-1]
        return Labels(best, index // size, index % size, frames.unsqueeze(1).expand_as(index))

    def _prune(self, waiting: Slots, new: Labels, inside: Tensor) -> tuple[Slots, Labels]:
        """Leave out new labels that are worse than a whole beam, and those who wait where they compete with these."""
        scores = waiting.score[inside]
        if self.prune == "frame":
            return waiting, new.above(worst_kept(scores, self.beam))
        worst = worst_kept(torch.cat([scores, new.score], 1), self.beam)
        kept = torch.where(scores < worst, NONE, scores)
        return waiting._replace(score=waiting.score.index_copy(0, inside, kept)), new.above(worst)

    def _kept(self, waiting: Slots) -> Slots:
        """The beam (b, K), best first."""
        return waiting.pick(waiting.score.topk(min(self.beam, waiting.score.shape[1])).indices).wide(self.beam)

    def _next(self, state: BeamState, who: Tensor, kept: Slots, context: Context) -> None:
        """Let `kept` be the hypotheses of the utterances `who`; their rows are those of `context`."""
        slots = state.slots.put(who, kept)
        state.context = context.pick(slots.row.flatten())
        state.slots = slots._replace(row=own_rows(slots))
        state.clock[who] += 1


def worst_kept(scores: Tensor, beam: int) -> Tensor:
    """The least score (b, 1) of a beam of the best of (b, N)."""
    if scores.shape[1] < beam:
        return scores.new_full((len(scores), 1), NONE)
    return scores.topk(beam).values[:, -1:]


def merged(waiting: Slots, new: Slots, inside: Tensor) -> Slots:
    """Hypotheses (b, N) and new ones (., K) of the utterances `inside`: the new ones that are equal to a waiting one
    are added to it, the others stand behind (b, N + K)."""
    old = waiting.of(inside)
    equal = (new.key.unsqueeze(2) == old.key.unsqueeze(1)) & (old.score > NONE).unsqueeze(1)  # (., K, N)
    if bool(equal.any()):
        gain, index = torch.where(equal, new.score.unsqueeze(2), NONE).max(1)
        node = torch.where(gain > old.score, new.node.gather(1, index), old.node)  # the times of the better one
        old = old._replace(score=old.score.logaddexp(gain), node=node)
        new = new._replace(score=torch.where(equal.any(2), NONE, new.score))
        waiting = waiting.put(inside, old)
    return waiting.beside(empty_slots(len(waiting.score), new.score.shape[1], inside.device).put(inside, new))
