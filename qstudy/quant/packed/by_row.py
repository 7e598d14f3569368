"""Packed integers whose inputs' scale is anew each row's own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from qstudy.bits import LayerBits, LayerShape
from qstudy.quant.arithmetic import LSTMState, Windows, whole
from qstudy.quant.integer.by_row import by_row, integer_recurrence
from qstudy.quant.integer.layers import integer_linear
from qstudy.quant.integer.whole_numbers import block_diagonal_integer_linear
from qstudy.quant.packed.integer import PackedInteger
from qstudy.quant.packed.layer import PackedArithmetic, StoredLayer


class PackedByRow(PackedArithmetic, name="integer_by_row"):
    """One layer in integers, whose stored input scale is in units of the row's largest magnitude.

    That is to be found before each product, and multiplied back after it. An LSTM has no compiled program.
    """

    def __init__(self, layer: StoredLayer) -> None:
        super().__init__(layer)
        tensors = {name: tensor for name, tensor in layer.tensors.items() if name != "bias"}  # comes after the scale
        self.integer = PackedInteger(layer._replace(tensors=tensors))

    @classmethod
    def takes(cls, shape: LayerShape, bits: LayerBits) -> bool:
        return PackedInteger.takes(shape, bits) and bool(shape.matrices)

    def float_matrices(self, matrices: list[Tensor]) -> list[Tensor]:
        return self.integer.float_matrices(matrices)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return by_row(x, None if bias is None else bias.detach(), lambda rows: self.integer.linear(rows, weight, None))

    def block_diagonal_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows = whole) -> Tensor:
        x, matrix, qparams = windows(x), self.integer.operand(0), self.integer.qparams[0]
        product = lambda rows: block_diagonal_integer_linear(rows, matrix, None, qparams)  # noqa: E731
        return by_row(x, bias, product, len(matrix.codes) // x.shape[-2])

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        matrices, (inputs, hidden) = [self.integer.operand(index) for index in range(2)], self.integer.qparams
        gates = by_row(x.transpose(0, 1), None, lambda rows: integer_linear(rows, matrices[0], None, inputs))
        bias = (weights[2] + weights[3]).detach()
        return integer_recurrence(gates, state, matrices[1], bias, hidden, torch.float32)

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        return self.integer.embedding(ids, weight)
