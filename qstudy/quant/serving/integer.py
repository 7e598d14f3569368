"""Served integers: what runs a packed layer with uniform or codebook weights."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from qstudy.bits import FLOAT, LayerBits, LayerShape
from qstudy.quant.arithmetic import LSTMState
from qstudy.quant.bitpack import unpack
from qstudy.quant.integer import Grid, accumulate, rescale
from qstudy.quant.serving.base import ServedArithmetic


class IntegerServed(ServedArithmetic):
    """One layer of a packed model: integer matrices, integer products where the activations are integers too."""

    grids: Tensor | None

    def __init__(self, matrices: Sequence[tuple[Tensor, Tensor | None]], grids: Tensor | None, bits: LayerBits) -> None:
        """
        Args:
            matrices: per weight matrix its integers (rows, columns) int8 or int16 with scale (rows,) or (1,) float32,
                or its float values with None.
            grids: scale and zero point (grids, 2) float32 of inputs and hidden state; None: float activations.
            bits: the layer's widths.
        """
        super().__init__()
        for index, (values, scale) in enumerate(matrices):
            self.register_buffer(f"values_{index}", values)
            self.register_buffer(f"scale_{index}", scale)
        self.register_buffer("grids", grids)
        self.bits = bits

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = self._product(0, x)
        return y if bias is None else y + bias

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        values, scale = self._matrix(0)
        rows = F.embedding(ids, values).float()
        if scale is None:
            return rows
        return rows * (scale if len(scale) == 1 else F.embedding(ids, scale[:, None]))

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        bias = weights[2] + weights[3]
        gates = self._product(0, x) + bias
        h, c = state[0][0], state[1][0]
        outputs = x.new_empty(len(x), x.shape[1], h.shape[1])
        recurrent = self._prepared(1)
        for t in range(x.shape[1]):
            i, f, g, o = (gates[:, t] + self._multiply(recurrent, 1, h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs[:, t] = h
        return outputs, (h.unsqueeze(0), c.unsqueeze(0))

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], shape: LayerShape, bits: LayerBits) -> "IntegerServed":
        matrices = [_unpack_matrix(tensors, i, size, bits) for i, size in enumerate(shape.matrices)]
        return cls(matrices, tensors.get("activation"), bits)

    def _matrix(self, index: int) -> tuple[Tensor, Tensor | None]:
        return getattr(self, f"values_{index}"), getattr(self, f"scale_{index}")

    def _product(self, index: int, x: Tensor) -> Tensor:
        return self._multiply(self._prepared(index), index, x)

    def _prepared(self, index: int) -> Tensor:
        """The matrix as its product wants it: integers beside integer activations, else float for one call."""
        values, _ = self._matrix(index)
        return values if self.grids is not None else values.float()

    def _multiply(self, matrix: Tensor, index: int, x: Tensor) -> Tensor:
        """x (..., D) times the transposed matrix (H, D): (..., H) float32."""
        scale = self._matrix(index)[1]
        if self.grids is None:
            y = x @ matrix.t()
            return y if scale is None else y * scale
        step, zero_point = self.grids[min(index, len(self.grids) - 1)]
        codes = Grid(step, zero_point, self.bits.activation).codes(x)
        if scale is None:
            return (codes - zero_point) * step @ matrix.t()
        return rescale(accumulate(codes, zero_point, matrix), step, scale)


def _unpack_matrix(
    own: Mapping[str, Tensor], index: int, size: tuple[int, int], bits: LayerBits
) -> tuple[Tensor, Tensor | None]:
    if bits.weight == FLOAT:
        return own[f"{index}.float"], None
    codes, table = unpack(own[f"{index}.codes"], bits.weight, size), own.get(f"{index}.table")
    if table is not None:
        codes = table[codes.int() & 2**bits.weight - 1]  # indices have no sign
    return codes, own[f"{index}.scale"]
