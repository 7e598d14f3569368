"""Alignment-length-synchronous beam search: all hypotheses have as many labels and blanks together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from qstudy.model import RNNT
from qstudy.recognize.beam import BeamSearch, BeamState, Hypotheses, not_numbers, read
from qstudy.recognize.contexts import Contexts
from qstudy.recognize.decoder import Hypothesis
from qstudy.recognize.kernels import HYPOTHESIS, step


class AlignmentState(BeamState):
    """As `BeamState`; hypotheses that have seen all frames wait until it is known whether that was the end."""

    def __init__(self, contexts: Contexts, frames: Tensor, beam: int) -> None:
        """Args: of the model; no frames (B, 0, J)."""
        super().__init__(contexts, len(frames), beam)
        self.ahead = list(frames)
        """Projected frames (., J) of every utterance that a hypothesis has yet to see."""
        self.heard = np.zeros(len(frames), np.int64)
        """All frames so far (B,)."""
        self.ended: list[Hypotheses] = [np.empty(0, HYPOTHESIS)] * len(frames)
        """The hypotheses of every utterance that have seen all frames of it, with the scores that they have at its
        end."""

    def alive(self) -> Sequence[Hypotheses]:
        return (self.kept, *self.ended)


class AlignmentSynchronous(BeamSearch):
    """Every step gives each hypothesis a label or a blank and keeps the best of all that result, so that a beam of one
    is greedy search. Hypotheses that are equal in their labels are one, whose probability is the sum of theirs.

    Source: Saon, Tüske and Audhkhasi 2020, "Alignment-length synchronous decoding for RNN transducer", ICASSP. What
    they bound is the length of the text; here it is the labels per frame, since the length of a stream is not known.
    """

    @torch.no_grad()
    def accept(self, model: RNNT, encoded: Tensor, lengths: Tensor, state: Any = None) -> AlignmentState:
        new = model.joiner.encoder(encoded)  # (B, T, J)
        state = state or AlignmentState(Contexts(model, self.fusion, encoded.device), new[:, :0], self.beam)
        counts = lengths.tolist()
        state.ahead = [torch.cat([old, now[:n]]) for old, now, n in zip(state.ahead, new, counts, strict=True)]
        state.heard += counts
        self._run(model, state, ending=False)
        return state

    @torch.no_grad()
    def finish(self, model: RNNT, state: Any) -> list[list[Hypothesis]]:
        self._run(model, state, ending=True)
        return [read(each, state.tree)[: self.beam] for each in state.ended]

    def _run(self, model: RNNT, state: AlignmentState, ending: bool) -> None:
        """Step while every hypothesis of an utterance has a frame to see."""
        frames = pad_sequence(state.ahead, batch_first=True)  # (B, A, J)
        first = state.heard - np.array([len(each) for each in state.ahead])
        while True:
            if ending:
                self._end(state)
            runs = (state.numbers > 0) & (latest(state) < state.heard)
            if not runs.any():
                break
            self._step(model, state, frames, first, state.of(runs))
        unseen = [n - begin for n, begin in zip(state.heard.tolist(), earliest(state), strict=True)]
        state.ahead = [each[max(len(each) - n, 0) :] for each, n in zip(state.ahead, unseen, strict=True)]

    def _step(
        self, model: RNNT, state: AlignmentState, frames: Tensor, first: np.ndarray, hypotheses: Hypotheses
    ) -> None:
        """Give each of the hypotheses (N,) a label or a blank; frames (B, A, J) begin with the frames `first`, (B,)."""
        u = hypotheses["utterance"]
        places = torch.from_numpy(u * frames.shape[1] + hypotheses["frame"] - first[u]).to(frames.device)
        here = frames.flatten(0, 1).index_select(0, places)
        logits, language = self.scores(model, here, hypotheses, state)
        fresh = np.zeros(state.kept.shape, bool)
        rules = (self.fusion.reward, self.beam, self.max_labels)
        if not step(hypotheses, logits, language, *rules, state.kept, state.numbers, fresh):
            raise not_numbers()
        if fresh.any():
            new = state.kept[fresh]
            self.grow(new, state)
            state.kept[fresh] = new
        state.contexts.keep(state.of(np.ones(len(first), bool))["row"])
        state.forget()

    def _end(self, state: AlignmentState) -> None:
        """Put those aside who have seen all frames."""
        for u, n in enumerate(state.numbers.tolist()):
            over = state.kept["frame"][u, :n] >= state.heard[u]
            if over.any():
                live = state.kept[u, :n]
                ended = self.at_the_end(live[over], state.contexts)
                state.ended[u] = np.concatenate([state.ended[u], ended])
                state.numbers[u] = n - over.sum()
                state.kept[u, : state.numbers[u]] = live[~over]


def latest(state: BeamState) -> np.ndarray:
    """The latest frame (B,) that a hypothesis of each utterance is to see."""
    here = np.arange(state.kept.shape[1]) < state.numbers[:, None]
    return np.where(here, state.kept["frame"], -1).max(1)


def earliest(state: AlignmentState) -> list[int]:
    """The earliest frame that a hypothesis of each utterance is to see."""
    here = np.arange(state.kept.shape[1]) < state.numbers[:, None]
    found: list[int] = np.where(here, state.kept["frame"], state.heard[:, None]).min(1).tolist()
    return found
