"""A packed linear layer for a few rows: one compiled call."""

from typing import Any

import torch
from torch import Tensor

from qstudy.quant.integer.accumulator import QParams, record, recording
from qstudy.quant.packed.loops import affine
from qstudy.quant.packed.matrix import ArrangedMatrix

FEW = 64
"""Rows (for an LSTM: times frames) up to which one by one beats unpacking the matrix for a product of all."""


def loops_accept(x: Tensor) -> bool:
    """Whether the compiled loops can run on x; `kernels.usable`, once when the model is loaded, says the rest."""
    return x.is_cpu and x.dtype is torch.float32


class PackedRows:
    """What one packed linear layer computes with."""

    def __init__(self, matrix: ArrangedMatrix, qparams: QParams, bias: Tensor | None) -> None:
        """Args: the matrix; the inputs' quantizer, at most 8 bits; bias (rows,) float32."""
        self.parts = (matrix, qparams, bias)
        self.matrix = matrix
        plan, kept = matrix.beside(qparams)
        plan += [matrix.columns, matrix.rows, matrix.padded_rows, matrix.padded_columns]
        self.plan = torch.tensor([*plan, 0 if bias is None else bias.data_ptr()])
        self.kept = kept

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies make their own: the plan holds addresses."""
        return PackedRows, self.parts

    def accepts(self, x: Tensor) -> bool:
        """Whether x (..., D) is few enough rows, where the compiled loops can run."""
        return loops_accept(x) and x.numel() <= FEW * self.matrix.columns

    def __call__(self, x: Tensor) -> Tensor:
        """Map x (..., D) float32 to (..., H)."""
        x, matrix = x.contiguous(), self.matrix
        rows = x.numel() // matrix.columns
        y = torch.empty(*x.shape[:-1], matrix.rows)
        sums = torch.empty(rows, matrix.padded_rows, dtype=torch.int32) if recording() else None
        affine(self.plan.data_ptr(), x.data_ptr(), y.data_ptr(), rows, 0 if sums is None else sums.data_ptr())
        if sums is not None:
            record(sums[:, : matrix.rows].view(y.shape))
        return y
