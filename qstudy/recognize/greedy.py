"""Greedy transducer decoding, batched; each utterance advances on its own clock."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qstudy.model import RNNT
from qstudy.model.predictors import BLANK, PredictorState
from qstudy.recognize.decoder import Decoder, Hypothesis
from qstudy.recognize.greedy_program import greedy_program
from qstudy.recognize.options import MAX_LABELS_PER_FRAME as MAX_LABELS_PER_FRAME


@dataclass
class GreedyState:
    """What a stream carries from chunk to chunk."""

    predicted: Tensor
    """Projected predictor vector (B, J) that waits for the next frame."""
    predictor: PredictorState
    """The prediction network's state after the last label."""
    hypotheses: list[list[int]]
    """Labels so far."""


@torch.no_grad()
def start(model: RNNT, batch: int, device: torch.device) -> GreedyState:
    """The state before the first frame."""
    blank = torch.full((batch,), BLANK, device=device)
    vector, state = model.predictor.advance(blank, model.predictor.start(batch, device))
    return GreedyState(model.joiner.predictor(vector), state, [[] for _ in range(batch)])


@torch.no_grad()
def greedy(model: RNNT, encoded: Tensor, lengths: Tensor, state: GreedyState | None = None) -> GreedyState:
    """Emit the best label until it is blank, frame by frame.

    Args:
        model: the transducer, in evaluation mode.
        encoded: encoder frames (B, T, .) float32.
        lengths: valid frames (B,) int64.
        state: what the previous chunk returned; None at the start.

    Returns:
        The state after the last frame; its `hypotheses` hold the labels.
    """
    state = state or start(model, len(encoded), encoded.device)
    frames = model.joiner.encoder(encoded)  # (B, T, J)
    program = greedy_program(model)
    if program is None or not program.accepts(frames):
        return search_in_torch(model, frames, lengths, state)
    found = program(frames, lengths, state.predicted, state.predictor)
    for labels, new in zip(state.hypotheses, found, strict=True):
        labels += new
    return state


def search_in_torch(model: RNNT, frames: Tensor, lengths: Tensor, state: GreedyState) -> GreedyState:
    """`greedy` after the projection: frames (B, T, J), all utterances at once, each as far as its blanks let it."""
    everyone = torch.arange(len(frames), device=frames.device)
    clock = torch.zeros_like(everyone)
    emitted = torch.zeros_like(everyone)  # labels of the current frame
    while bool((clock < lengths).any()):
        now = frames[everyone, clock.clamp_max(frames.shape[1] - 1)]
        best = model.joiner.join(now, state.predicted).argmax(-1)
        emits = (clock < lengths) & (best != BLANK) & (emitted < MAX_LABELS_PER_FRAME)
        emitted = torch.where(emits, emitted + 1, 0)
        clock = clock + (~emits).long()
        if bool(emits.any()):
            _emit(model, state, best, emits.nonzero()[:, 0])
    return state


def _emit(model: RNNT, state: GreedyState, best: Tensor, who: Tensor) -> None:
    """Append each speaker's label and move its predictor on."""
    for utterance, label in zip(who.tolist(), best[who].tolist(), strict=True):
        state.hypotheses[utterance].append(label)
    vector, after = model.predictor.advance(best[who], tuple(part[:, who].contiguous() for part in state.predictor))
    state.predicted[who] = model.joiner.predictor(vector)
    for part, new in zip(state.predictor, after, strict=True):
        part[:, who] = new


class Greedy(Decoder):
    """Greedy search as a recognizer asks for it."""

    def accept(self, model: RNNT, encoded: Tensor, lengths: Tensor, state: Any = None) -> GreedyState:
        return greedy(model, encoded, lengths, state)

    def labels(self, state: Any) -> list[list[int]]:
        found: list[list[int]] = state.hypotheses
        return found

    def finish(self, model: RNNT, state: Any) -> list[list[Hypothesis]]:
        return [[Hypothesis(labels)] for labels in self.labels(state)]


@torch.no_grad()
def greedy_labels(model: RNNT, features: Tensor, lengths: Tensor) -> list[list[int]]:
    """The labels of whole utterances; none where one is shorter than an encoder frame.

    Args:
        model: the transducer, in evaluation mode.
        features: log-mel energies (B, F, D) float32.
        lengths: valid frames (B,) int64.
    """
    return Greedy().best(model, features, lengths)
