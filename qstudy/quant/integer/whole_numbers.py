"""Products in integers that need no kernel: operands are whole numbers in floats, torch multiplies them exactly.

So autograd knows the way back; only from whole numbers to what they stand for it goes straight through. One product
serves the forward pass and the gradient, in training and, without gradient, in the packed model.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qstudy.quant.arithmetic import Windows, whole
from qstudy.quant.integer.accumulator import QParams, record, recording, rescale
from qstudy.quant.integer.layers import WeightOperand
from qstudy.quant.integer.matmul import EXACT_FLOAT32


def integer_product(x: Tensor, y: Tensor, x_qparams: QParams, y_qparams: QParams) -> Tensor:
    """The product of two activations: codes of both, exact accumulators, rescaled to float32.

    Backward, straight through: that of the product of the values that the codes stand for, zero where one was clipped.

    Args:
        x: (..., M, K) float.
        y: (..., K, N) float.
        x_qparams: of x.
        y_qparams: of y.

    Returns:
        (..., M, N) float32.
    """
    narrow = max(x_qparams.bits, y_qparams.bits) <= 8
    exact = exact_type(narrow, x.shape[-1], x_qparams.zero_point, y_qparams.zero_point)
    numbers = _numbers(x, x_qparams, exact), _numbers(y, y_qparams, exact)
    with torch.autocast(x.device.type, enabled=False):
        return _rescaled(torch.matmul(*numbers), narrow, x_qparams.scale, y_qparams.scale)


def block_diagonal_integer_linear(
    x: Tensor, weight: WeightOperand, bias: Tensor | None, qparams: QParams, windows: Windows = whole
) -> Tensor:
    """`integer_linear`, each of G groups of inputs with its own H / G rows; it multiplies backward in float32.

    Args:
        x: (..., G, D) float.
        weight: (H, D).
        bias: (H,) float32 or None.
        qparams: of x.
        windows: makes that of x, where it is a signal.

    Returns:
        (..., H) float32.
    """
    narrow = qparams.bits <= 8 and weight.codes.dtype == torch.int8
    exact = exact_type(narrow, weight.codes.shape[1], qparams.zero_point)
    rows = weight.codes.to(exact)
    if weight.values is not None:
        rows = _WholeNumbers.apply(weight.values, rows, weight.scale.view(-1, 1), None)
    with torch.autocast(x.device.type, enabled=False):
        product = windows.product(_numbers(x, qparams, exact), rows)
        y = _rescaled(product, narrow, qparams.scale, weight.scale)
        return y if bias is None else y + bias


def exact_type(narrow: bool, columns: int, *zero_points: Tensor | None) -> torch.dtype:
    """The floats that hold every sum of so many products of codes; `narrow`: of at most 8 bits all of them."""
    symmetric = all(zero_point is None for zero_point in zero_points)
    return torch.float32 if narrow and columns <= EXACT_FLOAT32 and symmetric else torch.float64


def _numbers(x: Tensor, qparams: QParams, exact: torch.dtype) -> Tensor:
    """The codes of x (...) less their zero point."""
    x = x.float()
    codes, inside = qparams.quantize_and_inside(x)
    numbers = codes.to(exact)
    if qparams.zero_point is not None:
        numbers -= qparams.zero_point
    found: Tensor = _WholeNumbers.apply(x, numbers, qparams.scale, inside)
    return found


def _rescaled(accumulator: Tensor, narrow: bool, x_scale: Tensor, scale: Tensor) -> Tensor:
    """Accumulators (..., N) to float32, after they were recorded."""
    if recording():
        record(accumulator.int() if narrow else accumulator)
    return rescale(accumulator.float() if narrow else accumulator, x_scale, scale)


class _WholeNumbers(torch.autograd.Function):
    """Whole numbers in float, one of which stands for `unit` of x; backward, zero where x was not `inside`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, numbers: Tensor, unit: Tensor, inside: Tensor | None) -> Tensor:
        ctx.save_for_backward(unit, inside)
        return numbers

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        unit, inside = ctx.saved_tensors
        passed = grad.float() / unit
        return passed if inside is None else passed.mul_(inside), None, None, None
