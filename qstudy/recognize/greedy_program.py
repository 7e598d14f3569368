"""A packed transducer's greedy search as a program: all frames of a batch, or of a stream, in one compiled call."""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from qstudy.model import RNNT
from qstudy.model.joiners import AdditiveJoiner, MultiplicativeJoiner
from qstudy.model.predictors import LSTMPredictor, PredictorState
from qstudy.quant.integer.accumulator import recording
from qstudy.quant.packed.arithmetics import PackedInteger, PackedWeightsOnly
from qstudy.quant.packed.program import Unfit, loops_accept, packed_as
from qstudy.recognize.greedy_loops import greedy_batch
from qstudy.recognize.options import MAX_LABELS_PER_FRAME
from qstudy.threads import on_threads


class GreedyProgram:
    """Of a joiner of two sides and an LSTM predictor whose layers multiply in integers of at most 8 bits."""

    def __init__(self, model: RNNT) -> None:
        """
        Raises:
            Unfit: a part is not of these.
        """
        joiner, predictor = model.joiner, model.predictor
        if type(joiner) not in (AdditiveJoiner, MultiplicativeJoiner) or type(predictor) is not LSTMPredictor:
            raise Unfit
        self.layers: list[Any] = [joiner.output, joiner.predictor, predictor.lstm, predictor.embedding]
        output, projection, lstm = (packed_as(layer, PackedInteger) for layer in self.layers[:3])
        table = packed_as(predictor.embedding, PackedWeightsOnly)
        self.arithmetics = (output, projection, lstm, table)
        values, scale = table.values(0), table.scale(0)
        if output.rows is None or projection.rows is None or lstm.program is None or values.dtype != torch.int8:
            raise Unfit
        sizes = [joiner.hidden, *values.shape, predictor.output_size, int(type(joiner) is MultiplicativeJoiner)]
        table_part = [values.data_ptr(), scale.data_ptr(), int(len(scale) > 1), MAX_LABELS_PER_FRAME]
        programs = (output.rows, lstm.program, projection.rows)
        self.plan = torch.tensor([*sizes, *table_part, *(each.plan.data_ptr() for each in programs)])
        self.alive = (values, scale, *programs)

    def is_current(self) -> bool:
        """Whether the layers still hold what it was made of: they may be packed anew."""
        return all(layer.arithmetic is own for layer, own in zip(self.layers, self.arithmetics, strict=True))

    def accepts(self, frames: Tensor) -> bool:
        """Whether it can search through frames (B, T, J): on the CPU, where nobody looks at accumulators."""
        return loops_accept(frames) and not recording()

    def __call__(self, frames: Tensor, lengths: Tensor, predicted: Tensor, state: PredictorState) -> list[list[int]]:
        """Search on.

        Args:
            frames: projected encoder frames (B, T, J) float32.
            lengths: valid ones (B,) int64.
            predicted: projected predictor vectors (B, J), moved on in place.
            state: of the predictor, moved on in place.

        Returns:
            The labels of each utterance.
        """
        labels = torch.empty(len(frames), max(frames.shape[1], 1) * MAX_LABELS_PER_FRAME, dtype=torch.int64)
        counts = torch.zeros_like(lengths)
        tensors = (frames.contiguous(), lengths, predicted, state[0][0], state[1][0], labels, counts)
        arguments = (self.plan.data_ptr(), *(each.numpy() for each in tensors))
        if len(frames) == 1:
            greedy_batch(*arguments, 0, 1)
        else:
            on_threads(greedy_batch, *arguments)
        return [row[:count] for row, count in zip(labels.tolist(), counts.tolist(), strict=True)]


_programs: WeakKeyDictionary[RNNT, GreedyProgram] = WeakKeyDictionary()


def greedy_program(model: RNNT) -> GreedyProgram | None:
    """The program of a packed model, made once; None where a layer is not what it runs."""
    if model not in _programs or not _programs[model].is_current():
        try:
            _programs[model] = GreedyProgram(model)
        except Unfit:
            return None
    return _programs[model]
