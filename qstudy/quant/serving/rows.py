"""A packed linear layer for a few rows: one compiled call."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from qstudy.quant.integer import Grid, record, recording
from qstudy.quant.kernels import usable
from qstudy.quant.serving.loops import affine
from qstudy.quant.serving.matrix import ArrangedMatrix, limits, unit

FEW = 64
"""Rows (for an LSTM: times frames) up to which one by one beats unpacking the matrix for a product of all."""


class PackedRows:
    """What one packed linear layer computes with, as plain arrays."""

    def __init__(self, matrix: ArrangedMatrix, grid: Grid, bias: Tensor) -> None:
        """Args: the matrix; the inputs' grid, at most 8 bits; bias (rows,) float32, or empty."""
        self.parts = (matrix, grid, bias)
        start = matrix.start(grid).numpy()
        scale = unit(matrix, grid).contiguous().numpy()
        plan = np.array(matrix.plan(), np.int64)
        self._constants = (plan, start, scale, bias.numpy(), limits(grid).numpy(), matrix.padded_columns)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies make their own: the plan holds addresses."""
        return PackedRows, self.parts

    def takes(self, x: Tensor) -> bool:
        """Whether x (..., D) is few enough rows, where the compiled loops can run."""
        return x.numel() <= FEW * x.shape[-1] and usable(x)

    def __call__(self, x: Tensor) -> Tensor:
        """Map x (..., D) float32 to (..., H)."""
        matrix = self.parts[0]
        flat = x.detach().reshape(-1, matrix.columns)
        y = torch.empty(len(flat), matrix.rows)
        sums = np.empty((len(flat), len(self._constants[1])), np.int32)
        affine(*self._constants, flat.numpy(), y.numpy(), sums)
        if recording():
            record(torch.from_numpy(sums[:, : matrix.rows]).view(*x.shape[:-1], matrix.rows))
        return y.view(*x.shape[:-1], matrix.rows)
