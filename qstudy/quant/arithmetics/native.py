"""Native arithmetic: training's forward pass in the integers that the packed model computes in."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from qstudy.quant.arithmetic import Affine, Extremes, LSTMState, Windows, whole
from qstudy.quant.arithmetics.fake import FakeArithmetic, WeightCache, observed
from qstudy.quant.bfloat16 import gradient_dtype
from qstudy.quant.integer.accumulator import device_qparams
from qstudy.quant.integer.layers import QuantizedWeight, integer_linear, integer_lstm
from qstudy.quant.integer.whole_numbers import block_diagonal_integer_linear
from qstudy.quant.quantizers import ActivationQuantizer, WeightQuantizer
from qstudy.quant.straight_through import straight_through

Gradient = Literal["float32", "bfloat16"]
"""Type in which the backward pass multiplies."""
GRADIENTS: dict[Gradient, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class NativeArithmetic(FakeArithmetic):
    """Integer products where weights and activations both have quantizers; gradients go straight through.

    Without an activation quantizer, floats are multiplied by integer weights and rescaled after the sum. While an
    activation quantizer only observes (calibration, or before the policy's `activation_start`), it counts as absent.
    What has no weight quantizer computes as `FakeArithmetic` does.

    Up to 8 bits the operands are int8 and the sums int32; 16 bits have no integer product in torch, so their whole
    numbers are multiplied in float64, where they are exact as well.

    Source: Ding et al. 2022, arXiv 2203.15952.
    """

    def __init__(
        self,
        weights: Sequence[WeightQuantizer | None],
        inputs: ActivationQuantizer | None = None,
        hidden: ActivationQuantizer | None = None,
        *,
        gradient: Gradient = "float32",
    ) -> None:
        """Args: quantizers as for `QuantizedArithmetic`; in which type the backward pass multiplies."""
        super().__init__(weights, inputs, hidden)
        self.gradient = GRADIENTS[gradient]
        self._quantized: WeightCache[QuantizedWeight] = WeightCache()

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not isinstance(self.weights[0], WeightQuantizer):
            return super().linear(x, weight, bias)
        return self._product(x, self._codes(0, weight), bias)

    def repeated_linear(self, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
        if not isinstance(self.weights[0], WeightQuantizer):
            return super().repeated_linear(weight, bias)
        matrix = self._codes(0, weight)
        return lambda x: self._product(x, matrix, bias)

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        return self._integer_matmul(x, y)

    def affine(self, weight: Tensor, bias: Tensor | None, extremes: Extremes) -> Affine | None:
        rows = super().affine(weight, bias, extremes)
        if rows is None or not isinstance(self.weights[0], WeightQuantizer):
            return rows
        matrix, quantizer = self._codes(0, weight), self.inputs
        assert matrix.values is not None
        if quantizer is None or not quantizer.fake_quant_enabled:
            exact, gradient = partial(weight_only_affine, weight=matrix, bias=bias), torch.float32
        else:
            exact = partial(integer_linear, weight=matrix, bias=bias, qparams=device_qparams(quantizer))
            gradient = gradient_dtype(self.gradient, weight.device)
        return rows._replace(weight=matrix.values, product=exact, gradient=gradient)

    def block_diagonal_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows = whole) -> Tensor:
        quantizer = self.inputs
        if not isinstance(self.weights[0], WeightQuantizer) or quantizer is None or not quantizer.fake_quant_enabled:
            return super().block_diagonal_linear(x, weight, bias, windows)
        x, matrix = observed(x, quantizer), self._codes(0, weight)
        return block_diagonal_integer_linear(x, matrix, bias, device_qparams(quantizer), windows)

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        quantizers = self._operand_quantizers()
        if not isinstance(self.weights[0], WeightQuantizer) or quantizers is None:
            return super().lstm(x, state, weights)
        w_input, w_hidden = (self._codes(index, matrix) for index, matrix in enumerate(weights[:2]))
        x, bias = observed(x, quantizers[0]), weights[2] + weights[3]
        inputs, hidden = map(device_qparams, quantizers)
        return integer_lstm(x, state, w_input, w_hidden, bias, inputs, hidden, self.gradient)

    def _product(self, x: Tensor, matrix: QuantizedWeight, bias: Tensor | None) -> Tensor:
        if self.inputs is None or not self.inputs.fake_quant_enabled:
            return weight_only_affine(self._input(x), matrix, bias)
        return integer_linear(observed(x, self.inputs), matrix, bias, device_qparams(self.inputs), self.gradient)

    def _codes(self, index: int, weight: Tensor) -> QuantizedWeight:
        quantizer = self.weights[index]
        assert isinstance(quantizer, WeightQuantizer)
        return self._quantized.get(index, weight, quantizer, partial(quantize, quantizer))


def quantize(quantizer: WeightQuantizer, weight: Tensor) -> QuantizedWeight:
    """The integers of weight (H, D), and what they stand for; gradients pass straight through to `weight`."""
    codes = quantizer.quantize(weight)
    values = straight_through(weight, codes.integers * codes.scale)
    return QuantizedWeight(values, codes.integers, codes.scale.flatten())


class _WeightOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, values)
        with torch.autocast(x.device.type, enabled=False):
            return (x @ codes.float().t()) * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, values = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            rows = grads[0].reshape(-1, len(values))
            grad_x = (rows @ values).view(x.shape)
            return grad_x, rows.t() @ x.reshape(len(rows), -1), None, None


def weight_only_product(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """Float x (..., D) times integer weights (H, D), rescaled after the sum, as the packed model does: (..., H)."""
    product: Tensor = _WeightOnly.apply(x.float(), weight.values, weight.codes, weight.scale)
    return product


def weight_only_affine(x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:
    """`weight_only_product` plus bias (H,)."""
    y = weight_only_product(x, weight)
    return y if bias is None else y + bias
