"""Packed groups: what runs a packed layer whose rows have several scales."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from qstudy.bits import FLOAT, LayerBits, LayerShape
from qstudy.errors import UserError
from qstudy.quant.arithmetic import LSTMState
from qstudy.quant.integer.accumulator import QParams, accumulate, rescale
from qstudy.quant.packed.base import PackedArithmetic
from qstudy.quant.packed.bitpack import unpack
from qstudy.quant.quantizers.blocks import spread


class PackedGroups(PackedArithmetic):
    """One layer of a packed model with a scale for each group of columns: a product per group, summed in float.

    Made to be right, not fast: a device that wants speed has one scale per row.
    """

    qparams: Tensor | None

    def __init__(
        self, matrices: Sequence[tuple[Tensor, Tensor | None]], qparams: Tensor | None, bits: LayerBits
    ) -> None:
        """
        Args:
            matrices: per weight matrix its integers (rows, columns) int8 or int16 with scales (rows, groups) float32,
                or its float values with None.
            qparams: scale and zero point (2, 2) float32 of inputs and hidden state; None: float activations.
            bits: the layer's widths.
        """
        super().__init__()
        for index, (values, scale) in enumerate(matrices):
            self.register_buffer(f"values_{index}", values)
            self.register_buffer(f"scale_{index}", scale)
        self.count = len(matrices)
        self.register_buffer("qparams", qparams)
        self.bits = bits

    @classmethod
    def check(cls, tensors: Mapping[str, Tensor], shape: LayerShape, bits: LayerBits) -> None:
        if bits.weight != FLOAT and (bits.granularity != "group" or bits.quantizer == "codebook"):
            raise UserError(f"bit_map.{shape.name}: the arithmetic `grouped` has groups, and no codebooks")
        super().check(tensors, shape, bits)

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], shape: LayerShape, bits: LayerBits) -> "PackedGroups":
        matrices = [_unpack_matrix(tensors, index, size, bits) for index, size in enumerate(shape.matrices)]
        return cls(matrices, tensors.get("activation"), bits)

    def float_matrices(self, matrices: list[Tensor]) -> list[Tensor]:
        return [self._floats(index) for index in range(self.count)]

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = self._product(0, x)
        return y if bias is None else y + bias

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        values, scale = self._matrix(0)
        rows = F.embedding(ids, values).float()
        if scale is None:
            return rows
        scales = F.embedding(ids, scale).repeat_interleave(self.bits.group, -1)
        return rows * scales[..., : rows.shape[-1]]

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        gates = self._product(0, x) + (weights[2] + weights[3])
        h, c = state[0][0], state[1][0]
        outputs = x.new_empty(len(x), x.shape[1], h.shape[1])
        for t in range(x.shape[1]):
            i, f, g, o = (gates[:, t] + self._product(1, h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs[:, t] = h
        return outputs, (h.unsqueeze(0), c.unsqueeze(0))

    def _matrix(self, index: int) -> tuple[Tensor, Tensor | None]:
        return getattr(self, f"values_{index}"), getattr(self, f"scale_{index}")

    def _floats(self, index: int) -> Tensor:
        values, scale = self._matrix(index)
        return values.float() if scale is None else values.float() * spread(scale, self.bits.group, values.shape)

    def _product(self, index: int, x: Tensor) -> Tensor:
        """x (..., columns) times the transposed matrix (rows, columns): (..., rows) float32."""
        values, scale = self._matrix(index)
        if self.qparams is None:  # the matrix becomes float for the length of this call
            return x @ self._floats(index).t()
        step, zero_point = self.qparams[min(index, len(self.qparams) - 1)]
        codes = QParams(step, zero_point, self.bits.activation).quantize(x)
        if scale is None:
            return (codes - zero_point) * step @ values.t()
        parts = zip(codes.split(self.bits.group, -1), values.split(self.bits.group, -1), scale.t(), strict=True)
        y = x.new_zeros(*x.shape[:-1], len(values))
        for part, matrix, scales in parts:
            y += rescale(accumulate(part.contiguous(), zero_point, matrix.contiguous()), step, scales)
        return y


def _unpack_matrix(
    own: Mapping[str, Tensor], index: int, size: tuple[int, int], bits: LayerBits
) -> tuple[Tensor, Tensor | None]:
    if bits.weight == FLOAT:
        return own[f"{index}.float"], None
    return unpack(own[f"{index}.codes"], bits.weight, size), own[f"{index}.scale"].view(size[0], -1)
