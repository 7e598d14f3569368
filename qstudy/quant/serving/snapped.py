"""Served float weights beside quantized activations: the values are snapped to their grids, as in training."""

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn import functional as F

from qstudy.bits import LayerBits, LayerShape
from qstudy.quant.arithmetic import LSTMState
from qstudy.quant.integer.accumulator import Grid
from qstudy.quant.recurrence.steps import quantized_recurrence
from qstudy.quant.serving.base import ServedArithmetic
from qstudy.quant.serving.matrix import unpack_grids


class SnappedServed(ServedArithmetic):
    """One layer of a packed model that only has activation grids."""

    values_0: Tensor
    values_1: Tensor

    def __init__(self, matrices: Sequence[Tensor], grids: Sequence[Grid]) -> None:
        """Args: float weights (rows, columns) each; grids of the inputs and, for an LSTM, of the hidden state."""
        super().__init__()
        for index, matrix in enumerate(matrices):
            self.register_buffer(f"values_{index}", matrix)
        self.grids = list(grids)

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], shape: LayerShape, bits: LayerBits) -> "SnappedServed":
        matrices = [tensors[f"{index}.float"] for index in range(len(shape.matrices))]
        return cls(matrices, unpack_grids(tensors, bits))

    def float_matrices(self, matrices: list[Tensor]) -> list[Tensor]:
        return list(self.buffers())

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(self._snap(x), self.values_0, bias)

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        gates = F.linear(self._snap(x).transpose(0, 1), self.values_0, weights[2] + weights[3]).contiguous()
        step, high = self.grids[1].step, self.grids[1].bounds()[1]
        y, h, c = quantized_recurrence(gates, state[0][0], state[1][0], self.values_1, step, high)
        return y.transpose(0, 1), (h.unsqueeze(0), c.unsqueeze(0))

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        return F.embedding(ids, self.values_0)

    def _snap(self, x: Tensor) -> Tensor:
        grid = self.grids[0]
        return (grid.codes(x) - grid.zero_point) * grid.step
