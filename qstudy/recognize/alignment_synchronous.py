"""Alignment-length-synchronous beam search: all hypotheses have as many labels and blanks together."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from qstudy.model import RNNT
from qstudy.model.predictors import BLANK
from qstudy.recognize.beam import BeamSearch, BeamState, Labels, own_rows, read
from qstudy.recognize.decoder import Hypothesis
from qstudy.recognize.hypotheses import NONE, Slots, empty_slots, join_contexts


class Alignment(NamedTuple):
    """Where hypotheses (B, K) stand, int64 each."""

    frame: Tensor
    """The one that is searched next."""
    emitted: Tensor
    """Labels in it so far."""
    prefix: Tensor
    """Key of the labels but for the last."""
    last: Tensor
    """The last label; BLANK: there is none."""


@dataclass
class AlignmentState(BeamState):
    """As `BeamState`; hypotheses that have seen all frames wait until it is known whether that was the end."""

    alignment: Alignment
    """Of the hypotheses."""
    ahead: list[Tensor]
    """Projected frames (., J) of every utterance that a hypothesis has yet to see."""
    ended: Slots
    """The best hypotheses (B, N) at the end, with the scores that they have there."""


class AlignmentSynchronous(BeamSearch):
    """Every step gives each hypothesis a label or a blank and keeps the best beam of all that result, so that a beam of
    one is greedy search. Hypotheses that are equal in their labels are one, whose probability is the sum of theirs.

    Source: Saon, Tüske and Audhkhasi 2020, "Alignment-length synchronous decoding for RNN transducer", ICASSP. The
    length of a text is bounded by labels per frame here, since a stream's length is not known.
    """

    @torch.no_grad()
    def accept(self, model: RNNT, encoded: Tensor, lengths: Tensor, state: Any = None) -> AlignmentState:
        state = state or self._begin(model, encoded)
        new = model.joiner.encoder(encoded)  # (B, T, J)
        state.ahead = [torch.cat([old, now[:n]]) for old, now, n in zip(state.ahead, new, lengths, strict=True)]
        state.clock += lengths
        self._run(model, state)
        return state

    def labels(self, state: Any) -> list[list[int]]:
        slots = state.slots.pick(state.slots.score.argsort(dim=1, descending=True, stable=True))
        return [found[0].labels for found in read(slots, state.tree)]

    @torch.no_grad()
    def finish(self, model: RNNT, state: Any) -> list[list[Hypothesis]]:
        self._run(model, state, ending=True)
        return read(state.ended, state.tree)

    def _begin(self, model: RNNT, encoded: Tensor) -> AlignmentState:
        begun = self.begin(model, len(encoded), encoded.device)
        zeros = torch.zeros_like(begun.slots.key)
        frames = model.joiner.encoder(encoded[:, :0])
        ended = empty_slots(len(encoded), 0, encoded.device)
        return AlignmentState(**vars(begun), alignment=Alignment(*[zeros] * 4), ahead=list(frames), ended=ended)

    def _run(self, model: RNNT, state: AlignmentState, ending: bool = False) -> None:
        """Step while every hypothesis of an utterance has a frame to see."""
        ahead = pad_sequence(state.ahead, batch_first=True)  # (B, A, J)
        first = state.clock - torch.tensor([len(frames) for frames in state.ahead], device=ahead.device)
        while True:
            if ending:
                self._end(state)
            live = state.slots.score > NONE
            frame = torch.where(live, state.alignment.frame, -1)
            runs = live.any(1) & (frame.amax(1) < state.clock)
            if not bool(runs.any()):
                break
            self._step(model, state, ahead, first, runs.nonzero()[:, 0])
        seen = torch.where(live, state.alignment.frame, state.clock.unsqueeze(1)).amin(1) - first
        state.ahead = [frames[n:] for frames, n in zip(state.ahead, seen.tolist(), strict=True)]

    def _end(self, state: AlignmentState) -> None:
        """Put those aside who have seen all frames."""
        over = state.alignment.frame >= state.clock.unsqueeze(1)
        reached = state.slots._replace(score=torch.where(over, state.slots.score, NONE))
        both = state.ended.beside(self.at_the_end(reached, state.context))
        state.ended = both.pick(both.score.topk(self.beam).indices)
        state.slots = state.slots._replace(score=torch.where(over, NONE, state.slots.score))

    def _step(self, model: RNNT, state: AlignmentState, ahead: Tensor, first: Tensor, who: Tensor) -> None:
        """Give each hypothesis of the utterances `who` a label or a blank."""
        slots, at, context = state.slots.of(who), Alignment(*(part[who] for part in state.alignment)), state.context
        place = (at.frame - first[who].unsqueeze(1)).clamp(0, ahead.shape[1] - 1)  # of empty slots, any
        log_probs = self.log_probs(model, ahead[who.unsqueeze(1), place], context.vector[slots.row])
        added = self.label_scores(log_probs, context.language[slots.row])
        added.masked_fill_((at.emitted >= self.max_labels).unsqueeze(2), NONE)
        added[..., BLANK] = log_probs[..., BLANK]
        scores = recombined(slots.score.unsqueeze(2) + added, slots, at)
        best, index = scores.flatten(1).topk(self.beam)
        parent, label = index // scores.shape[2], index % scores.shape[2]
        emits = label != BLANK
        new = Labels(torch.where(emits, best, NONE), parent, label, at.frame.gather(1, parent))
        kept, after = slots.pick(parent)._replace(score=best), moved(slots, at, parent, label)
        if bool((new.score > NONE).any()):
            grown = self.grow(model, state, slots, context, new)
            shifted = grown.slots._replace(row=grown.slots.row + len(context.vector))
            kept = Slots(*(torch.where(emits, one, other) for one, other in zip(shifted, kept, strict=True)))
            context = join_contexts([context, grown.context])
        state.alignment = Alignment(
            *(part.index_copy(0, who, one) for part, one in zip(state.alignment, after, strict=True))
        )
        slots = state.slots.put(who, kept)
        state.context, state.slots = context.pick(slots.row.flatten()), slots._replace(row=own_rows(slots))


def recombined(scores: Tensor, slots: Slots, at: Alignment) -> Tensor:
    """Scores (b, K, V) of what hypotheses become, in which no two become the same: where the label of one makes it
    equal to another behind its blank, that one's blank gets the sum."""
    equal = at.prefix.unsqueeze(1) == slots.key.unsqueeze(2)  # (b, K, K): the second is the first and a label
    equal &= ((slots.score > NONE) & (at.last != BLANK)).unsqueeze(1) & (slots.score > NONE).unsqueeze(2)
    utterance, shorter, longer = equal.nonzero(as_tuple=True)
    label = at.last[utterance, longer]
    gain = scores[utterance, shorter, label]
    scores[utterance, shorter, label] = NONE
    scores[utterance, longer, BLANK] = scores[utterance, longer, BLANK].logaddexp(gain)
    return scores


def moved(slots: Slots, at: Alignment, parent: Tensor, label: Tensor) -> Alignment:
    """Where the hypotheses stand that come from places `parent` with a label or a blank, (b, K) both."""
    frame, emitted, prefix, last = (part.gather(1, parent) for part in at)
    blank = label == BLANK
    return Alignment(
        frame + blank,
        torch.where(blank, 0, emitted + 1),
        torch.where(blank, prefix, slots.key.gather(1, parent)),
        torch.where(blank, last, label),
    )
