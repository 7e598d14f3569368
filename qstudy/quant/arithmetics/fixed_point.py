"""The arithmetic that computes as a fixed-point accelerator does: integers forward, straight through backward."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from qstudy.quant.arithmetic import Affine, Extremes, LSTMState, Windows, whole
from qstudy.quant.arithmetics.fake import FakeArithmetic, WeightCache
from qstudy.quant.fixed_point.linear import fixed_point_tanh, handed_over
from qstudy.quant.fixed_point.lstm import fixed_point_lstm, gate_requantization, hidden_scale, lstm_operands
from qstudy.quant.fixed_point.norm import fixed_point_layer_norm
from qstudy.quant.fixed_point.operators import FixedPoint
from qstudy.quant.fixed_point.softmax import fixed_point_softmax
from qstudy.quant.integer.accumulator import QParams, accumulate_block_diagonal, device_qparams, record
from qstudy.quant.integer.matmul import integer_matmul
from qstudy.quant.packed.arithmetics import PackedArithmetic, PackedFixedPoint, PackedProduct
from qstudy.quant.quantizers import ActivationQuantizer, QuantizedMatrix, WeightQuantizer
from qstudy.quant.straight_through import straight_through


class _FixedPointLinear(torch.autograd.Function):
    """The integer product as it is handed over; backward that of the float product of the quantized values."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        codes: Tensor,
        input_scale: Tensor,
        matrix: QuantizedMatrix,
        spec: FixedPoint,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        accumulator = integer_matmul(codes, matrix.integers)
        record(accumulator)
        return handed_over(accumulator, input_scale, matrix.scale.flatten(), bias, spec)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0].float()
        rows = grad.reshape(-1, grad.shape[-1])
        grad_x = grad @ weight if ctx.needs_input_grad[0] else None
        grad_bias = rows.sum(0) if ctx.needs_input_grad[2] else None
        return grad_x, rows.t() @ x.reshape(-1, x.shape[-1]), grad_bias, None, None, None, None


class FixedPointArithmetic(FakeArithmetic):
    """int8 products with int32 accumulators; an LSTM's cell in 16-bit fixed point.

    Softmax, layer normalization and a joiner's tanh are 16-bit fixed point as well, and a linear layer hands over 16
    bits: its accumulators by multiplier and shift, plus the bias (where the formats have `linear_fraction`, else
    floats). What no layer computes (sums, products, SiLU between layers) is in float, of numbers that 16 bits hold.
    While activations are not yet quantized (calibration, weights first), these products, cells and the tanh are in
    float, as under `FakeArithmetic`; softmax and layer normalization are in fixed point from the first step.

    Source: Shakiah et al. 2022, arXiv 2305.07778.
    """

    def __init__(
        self,
        weights: Sequence[WeightQuantizer | None],
        inputs: ActivationQuantizer | None = None,
        hidden: ActivationQuantizer | None = None,
        *,
        spec: FixedPoint,
    ) -> None:
        """Args: one quantizer per matrix; quantizers of inputs and hidden state; the accelerator's formats."""
        super().__init__(weights, inputs, hidden)
        self.spec = spec
        self._matrices: WeightCache[QuantizedMatrix] = WeightCache()

    @property
    def packed(self) -> type[PackedArithmetic]:
        return PackedProduct if self.hidden is not None and not self.weights else PackedFixedPoint

    @property
    def settings(self) -> dict[str, Any]:
        return {} if self.packed is PackedProduct else self.spec.to_dict()

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return FixedPointArithmetic.repeated_linear(self, weight, bias)(x)  # an own `linear` may ask for this one

    def repeated_linear(self, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
        quantizer = self.enabled_inputs
        if quantizer is None:
            return super().repeated_linear(weight, bias)
        values, matrix = self._weight(0, weight), self._quantized_matrix(0, weight)
        return lambda x: self._product(x, quantizer, values, matrix, bias)

    def affine(self, weight: Tensor, bias: Tensor | None, extremes: Extremes) -> Affine | None:
        rows = super().affine(weight, bias, extremes)
        quantizer = self.enabled_inputs
        if rows is None or quantizer is None:
            return rows
        matrix = self._quantized_matrix(0, weight)
        exact = partial(self._handed_over, qparams=device_qparams(quantizer), matrix=matrix, bias=bias)
        return rows._replace(product=exact, tanh=self.tanh, gradient=torch.float32)

    def _handed_over(self, x: Tensor, qparams: QParams, matrix: QuantizedMatrix, bias: Tensor | None) -> Tensor:
        """The product alone, without observing and without a gradient."""
        accumulator = integer_matmul(qparams.quantize(x.detach().float()), matrix.integers)
        record(accumulator)
        return handed_over(accumulator, qparams.scale, matrix.scale.flatten(), bias, self.spec)

    def _product(
        self, x: Tensor, quantizer: ActivationQuantizer, values: Tensor, matrix: QuantizedMatrix, bias: Tensor | None
    ) -> Tensor:
        """x by the integers of a matrix; its float values are what the gradient is of."""
        with torch.autocast(x.device.type, enabled=False):
            quantized, qparams = quantizer(x).float(), device_qparams(quantizer)
            codes = qparams.quantize(x.detach().float())
            y: Tensor = _FixedPointLinear.apply(quantized, values, bias, codes, qparams.scale, matrix, self.spec)
            return y

    def block_diagonal_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows = whole) -> Tensor:
        fake = super().block_diagonal_linear(x, weight, bias, windows)  # what the gradient is of
        quantizer = self.enabled_inputs
        if quantizer is None:
            return fake
        matrix = self._quantized_matrix(0, weight)  # outside `no_grad`, where weights are taken to stay as they are
        with torch.no_grad():
            qparams = device_qparams(quantizer)
            codes = qparams.quantize(x.float())
            accumulator = accumulate_block_diagonal(codes, qparams.zero_point, matrix.integers, windows)
            record(accumulator)
            exact = handed_over(accumulator, qparams.scale, matrix.scale.flatten(), bias, self.spec)
        return straight_through(fake, exact)

    def tanh(self, x: Tensor) -> Tensor:
        if self.enabled_inputs is None or self.spec.linear_fraction is None:
            return super().tanh(x)
        return straight_through(torch.tanh(x.float()), fixed_point_tanh(x, self.spec))

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        return self._integer_matmul(x, y)

    def softmax(self, x: Tensor) -> Tensor:
        return fixed_point_softmax(x, self.spec)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            float_norm = F.layer_norm(x.float(), weight.shape, weight, bias, eps)
        return straight_through(float_norm, fixed_point_layer_norm(x, weight, bias, eps, self.spec))

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        quantizer = self.enabled_inputs
        if quantizer is None:
            return super().lstm(x, state, weights)
        w_input, w_hidden, b_input, b_hidden = weights
        with torch.autocast(x.device.type, enabled=False):
            quantized, bias = quantizer(x).float().transpose(0, 1), b_input + b_hidden
            qparams = device_qparams(quantizer)
            codes = qparams.quantize(x.detach().float()).transpose(0, 1).contiguous()
            matrices = [self._quantized_matrix(0, w_input), self._quantized_matrix(1, w_hidden)]
            integers = [matrix.integers for matrix in matrices]
            requantizations = self._requantizations(matrices, qparams)
            operands = lstm_operands(integers, requantizations, bias, qparams.bits, self.spec)
            values = (self._weight(0, w_input), self._weight(1, w_hidden), bias)
            h, c = state[0][0].float(), state[1][0].float()
            y, h, c = fixed_point_lstm(quantized, h, c, values, codes, operands)
        return y.transpose(0, 1), (h.unsqueeze(0), c.unsqueeze(0))

    def pack(self, matrices: Sequence[Tensor]) -> dict[str, Tensor]:
        tensors = super().pack(matrices)
        if self.inputs is not None and self.hidden is not None and matrices:  # an LSTM: its products end in gates
            quantized = [self._quantized_matrix(index, matrix) for index, matrix in enumerate(matrices)]
            requantizations = self._requantizations(quantized, device_qparams(self.inputs))
            tensors |= {f"{index}.scale": each for index, each in enumerate(requantizations)}
        return tensors

    def _requantizations(self, matrices: Sequence[QuantizedMatrix], inputs: QParams) -> list[Tensor]:
        """For the products with inputs and with hidden states: multipliers and shifts, one for each scale."""
        scales: list[Tensor | float] = [inputs.scale, hidden_scale(inputs.bits)]
        pairs = zip(matrices, scales, strict=True)
        return [gate_requantization(matrix.scale, scale, self.spec) for matrix, scale in pairs]

    def _quantized_matrix(self, index: int, weight: Tensor) -> QuantizedMatrix:
        quantizer = self.weights[index]
        assert isinstance(quantizer, WeightQuantizer)
        return self._matrices.get(index, weight, quantizer, torch.no_grad()(quantizer.quantize))
