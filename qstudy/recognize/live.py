"""A packed LSTM recognizer as a program that listens: a stream is one compiled call for each piece of its samples."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from qstudy.data.features import Filterbank
from qstudy.model import RNNT
from qstudy.model.encoders.lstm import LSTMEncoder
from qstudy.quant.packed.arithmetics import PackedInteger
from qstudy.quant.packed.program import LSTMProgram, Unfit, packed_as
from qstudy.recognize.decoder import Hypothesis
from qstudy.recognize.greedy import start
from qstudy.recognize.greedy_program import greedy_program
from qstudy.recognize.live_loops import encode, hear
from qstudy.recognize.options import MAX_LABELS_PER_FRAME


class LiveProgram:
    """The constants of a recognizer with an LSTM encoder, all packed in integers of at most 8 bits; streams share
    them."""

    def __init__(self, model: RNNT, filterbank: Filterbank) -> None:
        """
        Raises:
            Unfit: a part is not what the loops run.
        """
        encoder, search = model.encoder, greedy_program(model)
        rows = packed_as(model.joiner.encoder, PackedInteger).rows
        if type(encoder) is not LSTMEncoder or search is None or rows is None:
            raise Unfit
        if not isinstance(layers := encoder.lstm.program, LSTMProgram):
            raise Unfit
        features, points = filterbank.settings, filterbank.fft_size // 2
        self.model, self.features, self.encoder, self.joined = model, features, encoder, rows.matrix.rows
        sizes = [features.window, features.hop, features.bins, points, encoder.stack, encoder.reduction]
        sizes += [int(encoder.normalize.prior > 0), layers.hidden_size, self.joined]
        angles = torch.arange(points, dtype=torch.float64) * (torch.pi / points)
        waves = torch.cat([angles.cos(), angles.sin()])
        constants = [filterbank.window, filterbank.filters, waves, bit_reversed(points)]
        constants += [encoder.normalize.mean, encoder.normalize.deviation]
        self.frame, self.preemphasis = features.hop * encoder.chunk_frames, features.preemphasis
        self.alive = [each.contiguous() for each in constants]
        plans = (layers.plan, rows.plan, search.plan)
        self.layers, self.programs = layers, (rows, search)
        self.numbers = [*sizes, *(each.data_ptr() for each in (*self.alive, *plans))]
        self.filterbank = filterbank

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies make their own: the numbers are addresses."""
        return LiveProgram, (self.model, self.filterbank)


class LiveStream:
    """One utterance that arrives in pieces."""

    def __init__(self, program: LiveProgram, frames: int = 1) -> None:
        """Args: the recognizer; encoder frames that `encode` may be given at once."""
        self.program, encoder, features = program, program.encoder, program.features
        first = start(program.model, 1, torch.device("cpu"))
        total = torch.zeros(features.bins + 1, dtype=torch.float64)
        total[-1] = encoder.normalize.prior
        self.projected = torch.zeros(frames, program.joined)
        self.carried = [
            torch.zeros(2, dtype=torch.int64),
            torch.zeros(features.window),
            torch.zeros(encoder.chunk_frames * features.bins),
            total,
            torch.zeros(2, len(program.layers.layers), 1, program.layers.hidden_size),
            torch.zeros(frames * encoder.output_size),
            self.projected,
            first.predicted.clone(),
            torch.cat(first.predictor).contiguous(),
        ]
        self.waiting = self.carried[2].view(-1, features.bins)
        self.plan = torch.tensor([*program.numbers, *(each.data_ptr() for each in self.carried)])
        self.address = self.plan.data_ptr()
        self.labels: list[int] = []
        """What was said so far."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies make their own: the plan holds addresses."""
        return _resumed, (self.program, len(self.projected), self.carried, self.labels)

    def accept(self, samples: Tensor) -> list[int]:
        """Take the next samples (N,) float32; returns the labels so far.

        Raises:
            ValueError: a sample is no number, or they have another shape.
        """
        if samples.dim() != 1:
            raise ValueError(f"Samples must be (N,), not {tuple(samples.shape)}.")
        samples, frame = samples.float().cpu().contiguous(), self.program.frame
        room = torch.empty((len(samples) // frame + 2) * MAX_LABELS_PER_FRAME, dtype=torch.int64)
        found = hear(self.address, self.program.preemphasis, samples.data_ptr(), len(samples), room.data_ptr())
        if found < 0:
            raise ValueError("Samples must be finite numbers.")
        if found:
            self.labels += room[:found].tolist()
        return self.labels

    def finish(self) -> list[Hypothesis]:
        """Flush the last frames; returns what was said."""
        return [Hypothesis(self.accept(torch.zeros(self.program.features.tail)))]

    def encode(self, x: Tensor) -> Tensor:
        """Go on with features that are there already, normalized and stacked.

        Args:
            x: (1, T, stack * bins) float32, contiguous; T a multiple of the encoder's reduction.

        Returns:
            Projected encoder frames (frames, J), those of this call first; the next one writes over them.
        """
        encode(self.address, x.data_ptr(), x.shape[1])
        return self.projected


def _resumed(program: LiveProgram, frames: int, carried: list[Tensor], labels: list[int]) -> LiveStream:
    stream = LiveStream(program, frames)
    for own, given in zip(stream.carried, carried, strict=True):
        own.copy_(given)
    stream.labels += labels
    return stream


def bit_reversed(count: int) -> Tensor:
    """The numbers below a power of two, each with its bits in the opposite order: (count,) int64."""
    order = np.zeros(1, np.int64)
    while len(order) < count:
        order = np.concatenate([2 * order, 2 * order + 1])
    return torch.from_numpy(order)


def live_program(model: RNNT, filterbank: Filterbank) -> LiveProgram | None:
    """The program of a packed model; None where a part is not what the loops run."""
    try:
        return LiveProgram(model, filterbank)
    except Unfit:
        return None
