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
from qstudy.quant.integer.layers import WeightOperand, integer_linear, integer_lstm
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
        self._operands: WeightCache[WeightOperand] = WeightCache()

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self.quantizes_weights:
            return super().linear(x, weight, bias)
        return self._product(x, self._operand(0, weight), bias)

    def repeated_linear(self, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
        if not self.quantizes_weights:
            return super().repeated_linear(weight, bias)
        operand = self._operand(0, weight)
        return lambda x: self._product(x, operand, bias)

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        return self._integer_matmul(x, y)

    def affine(self, weight: Tensor, bias: Tensor | None, extremes: Extremes) -> Affine | None:
        rows = super().affine(weight, bias, extremes)
        if rows is None or not self.quantizes_weights:
            return rows
        operand, quantizer = self._operand(0, weight), self.enabled_inputs
        assert operand.values is not None
        if quantizer is None:
            exact, gradient = partial(weight_only_affine, weight=operand, bias=bias), torch.float32
        else:
            exact = partial(integer_linear, weight=operand, bias=bias, qparams=device_qparams(quantizer))
            gradient = gradient_dtype(self.gradient, weight.device)
        return rows._replace(weight=operand.values, product=exact, gradient=gradient)

    def block_diagonal_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows = whole) -> Tensor:
        quantizer = self.enabled_inputs
        if quantizer is None or not self.quantizes_weights:
            return super().block_diagonal_linear(x, weight, bias, windows)
        x, operand = observed(x, quantizer), self._operand(0, weight)
        return block_diagonal_integer_linear(x, operand, bias, device_qparams(quantizer), windows)

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        inputs, hidden = self.enabled_inputs, self.enabled_hidden
        if inputs is None or hidden is None or not self.quantizes_weights:
            return super().lstm(x, state, weights)
        w_input, w_hidden = (self._operand(index, matrix) for index, matrix in enumerate(weights[:2]))
        x, bias = observed(x, inputs), weights[2] + weights[3]
        qparams = device_qparams(inputs), device_qparams(hidden)
        y, after = integer_lstm(x, state, w_input, w_hidden, bias, *qparams, self.gradient)
        return self._observe_hidden(y, state[0]), after

    def _product(self, x: Tensor, operand: WeightOperand, bias: Tensor | None) -> Tensor:
        quantizer = self.enabled_inputs
        if quantizer is None:
            return weight_only_affine(self._input(x), operand, bias)
        return integer_linear(observed(x, quantizer), operand, bias, device_qparams(quantizer), self.gradient)

    def _operand(self, index: int, weight: Tensor) -> WeightOperand:
        quantizer = self.weights[index]
        assert isinstance(quantizer, WeightQuantizer)
        return self._operands.get(index, weight, quantizer, partial(weight_operand, quantizer))


def weight_operand(quantizer: WeightQuantizer, weight: Tensor) -> WeightOperand:
    """The integers of weight (H, D), and what they stand for; gradients pass straight through to `weight`."""
    matrix = quantizer.quantize(weight)
    values = straight_through(weight, matrix.integers * matrix.scale)
    return WeightOperand(values, matrix.integers, matrix.scale.flatten())


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
            return grad_x, rows.t() @ x.reshape(-1, x.shape[-1]), None, None


def weight_only_product(x: Tensor, weight: WeightOperand) -> Tensor:
    """Float x (..., D) times integer weights (H, D), rescaled after the sum, as the packed model does: (..., H)."""
    product: Tensor = _WeightOnly.apply(x.float(), weight.values, weight.codes, weight.scale)
    return product


def weight_only_affine(x: Tensor, weight: WeightOperand, bias: Tensor | None) -> Tensor:
    """`weight_only_product` plus bias (H,)."""
    y = weight_only_product(x, weight)
    return y if bias is None else y + bias
