"""Which weights of a matrix share a scale: the matrix seen as rows of such weights."""

import torch
from torch import Tensor
from torch.nn import functional as F

from qstudy.errors import UserError


def columns_per_scale(granularity: str, group: int, columns: int) -> int:
    """How many columns of a row share a scale; 0: the whole matrix has one.

    Raises:
        UserError: an unknown granularity.
    """
    spans = {"tensor": 0, "channel": columns, "group": min(group, columns)}
    if granularity not in spans:
        raise UserError(f"granularity: {granularity!r} is not one of {', '.join(spans)}.")
    return spans[granularity]


def to_blocks(matrix: Tensor, per_scale: int) -> Tensor:
    """Matrix (rows, columns) as (scales, weights per scale); the last group of a row is filled up with zeros.

    Args:
        matrix: any dtype; where its columns are a multiple of `per_scale`, the result is a view.
        per_scale: columns of a row that share a scale; 0: the whole matrix is one block.
    """
    if per_scale == 0:
        return matrix.reshape(1, -1)
    missing = -matrix.shape[1] % per_scale
    return (F.pad(matrix, (0, missing)) if missing else matrix).reshape(-1, per_scale)


def from_blocks(blocks: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `to_blocks`: (rows, columns), contiguous, as cuDNN wants the weights of an LSTM."""
    return blocks.reshape(shape[0], -1)[:, : shape[1]].contiguous()


def spread(scale: Tensor, per_scale: int, shape: torch.Size) -> Tensor:
    """Scales (rows, groups), (rows, 1) or (1, 1), one for each weight: (rows, columns)."""
    if scale.shape[1] == 1:
        return scale.expand(shape)
    return scale.repeat_interleave(per_scale, 1)[:, : shape[1]]
