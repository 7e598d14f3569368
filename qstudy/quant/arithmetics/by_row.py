"""Native arithmetic whose activation scale is the largest magnitude of the row at hand."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qstudy.quant.arithmetic import Affine, Extremes, LSTMState, Windows, whole
from qstudy.quant.arithmetics.native import NativeArithmetic
from qstudy.quant.bfloat16 import gradient_dtype
from qstudy.quant.integer.accumulator import device_qparams
from qstudy.quant.integer.by_row import by_row, integer_recurrence
from qstudy.quant.packed.arithmetics import PackedArithmetic, PackedByRow


class ByRowArithmetic(NativeArithmetic):
    """`NativeArithmetic` of rows in units of their own largest magnitude; its input quantizer ends at 1.

    An LSTM's hidden state lies in (-1, 1) and keeps that scale. Only for layers with matrices: in a product of
    activations one operand's rows are frames, of which a stream does not yet know all.
    """

    @property
    def packed(self) -> type[PackedArithmetic]:
        return PackedByRow

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return ByRowArithmetic.repeated_linear(self, weight, bias)(x)  # an own `linear` may ask for this one

    def repeated_linear(self, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
        if self.enabled_inputs is None:
            return super().repeated_linear(weight, bias)
        product = super().repeated_linear(weight, None)
        return lambda x: by_row(x, bias, product)

    def affine(self, weight: Tensor, bias: Tensor | None, extremes: Extremes) -> Affine | None:
        if self.enabled_inputs is None:
            return super().affine(weight, bias, extremes)
        rows = super().affine(weight, None, extremes)
        if rows is None or rows.prepare is None:
            return rows and rows._replace(bias=bias)
        exact, rounded = rows.product, rows.prepare
        return rows._replace(
            bias=bias,
            prepare=lambda x: by_row(x, None, rounded),
            product=None if exact is None else lambda x: by_row(x, bias, exact),
        )

    def block_diagonal_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows = whole) -> Tensor:
        if self.enabled_inputs is None:
            return super().block_diagonal_linear(x, weight, bias, windows)
        x, product = windows(x), super().block_diagonal_linear
        return by_row(x, bias, lambda rows: product(rows, weight, None), len(weight) // x.shape[-2])

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        quantizer = self.enabled_hidden
        if self.enabled_inputs is None or quantizer is None:
            return super().lstm(x, state, weights)
        inputs, bias = self.linear(x.transpose(0, 1), weights[0], None), weights[2] + weights[3]
        dtype = gradient_dtype(self.gradient, x.device)
        with torch.autocast(x.device.type, enabled=False):
            operand = self._operand(1, weights[1])
            return integer_recurrence(inputs, state, operand, bias, device_qparams(quantizer), dtype)
