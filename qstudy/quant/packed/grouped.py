"""Packed groups: what runs a packed layer whose rows have several scales."""

import torch
from torch import Tensor

from qstudy.bits import FLOAT
from qstudy.errors import UserError
from qstudy.quant.integer.accumulator import accumulate, rescale
from qstudy.quant.packed.layout import StoredLayer
from qstudy.quant.packed.scaled import PackedScaled


class PackedGroups(PackedScaled, name="grouped"):
    """One layer of a packed model with a scale for each group of columns: a product per group, summed in float.

    Made to be right, not fast: a device that wants speed has one scale per row.
    """

    @classmethod
    def check(cls, layer: StoredLayer) -> None:
        bits = layer.bits
        if bits.weight == FLOAT or bits.granularity != "group" or bits.quantizer == "codebook":
            raise UserError(f"bit_map.{layer.shape.name}: the arithmetic `grouped` has groups, and no codebooks")
        super().check(layer)

    def product(self, index: int, x: Tensor) -> Tensor:
        values = self.values(index)
        if self.activation is None:  # the matrix becomes float for the length of this call
            return x @ self.rows(index, torch.arange(len(values))).t()
        qparams, group = self.qparams(index), self.bits.group
        scales = self.scale(index).view(len(values), -1)
        parts = zip(qparams.quantize(x).split(group, -1), values.split(group, -1), scales.t(), strict=True)
        y = x.new_zeros(*x.shape[:-1], len(values))
        for part, matrix, scale in parts:
            sums = accumulate(part.contiguous(), qparams.zero_point, matrix.contiguous())
            y += rescale(sums, qparams.scale, scale)
        return y
