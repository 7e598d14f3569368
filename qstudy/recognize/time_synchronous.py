"""Time-synchronous beam search: all hypotheses have seen the same frames."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from qstudy.model import RNNT
from qstudy.recognize.beam import BeamSearch, BeamState, not_numbers, read
from qstudy.recognize.contexts import Contexts
from qstudy.recognize.decoder import Hypothesis
from qstudy.recognize.fusion import Fusion
from qstudy.recognize.kernels import HYPOTHESIS, expand, keep_best
from qstudy.recognize.options import MAX_LABELS_PER_FRAME

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
        state = state or BeamState(Contexts(model, self.fusion, encoded.device), len(encoded), self.beam)
        frames = model.joiner.encoder(encoded).transpose(0, 1).contiguous()  # (T, B, J)
        ends = lengths.cpu().numpy()
        for t in range(int(ends.max(initial=0))):
            self._frame(model, frames[t], ends > t, state)
        return state

    @torch.no_grad()
    def finish(self, model: RNNT, state: Any) -> list[list[Hypothesis]]:
        whole = self.at_the_end(state.kept.ravel(), state.contexts).reshape(state.kept.shape)
        return [read(each[:n], state.tree) for each, n in zip(whole, state.numbers.tolist(), strict=True)]

    def _frame(self, model: RNNT, frame: Tensor, who: np.ndarray, state: BeamState) -> None:
        """One frame (B, J), of the utterances `who`, (B,) bool."""
        growing = state.of(who)
        waiting = np.empty((len(frame), self.beam * (self.max_labels + 1)), HYPOTHESIS)
        counts = np.zeros(len(frame), np.int64)
        for emitted in range(self.max_labels + 1):
            here = frame.index_select(0, torch.from_numpy(growing["utterance"].copy()).to(frame.device))
            scores = self.scores(model, here, growing, state)
            new = np.empty(len(growing) * self.beam, HYPOTHESIS)
            rules = (self.beam, self.prune == "expansion", emitted == self.max_labels)
            made = expand(growing, *scores, self.fusion.reward, waiting, counts, *rules, new)
            if made < 0:
                raise not_numbers()
            if not made:
                break
            growing = new[:made]
            self.grow(growing, state)
        keep_best(waiting, counts, state.kept, state.numbers)
        state.contexts.keep(state.of(np.ones_like(who))["row"])
        state.forget()
