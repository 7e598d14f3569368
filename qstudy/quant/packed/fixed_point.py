"""Packed fixed point: what runs a packed layer that was trained as a fixed-point accelerator computes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from qstudy.bits import LayerBits, LayerShape
from qstudy.errors import UserError
from qstudy.fields import fill
from qstudy.quant.arithmetic import LSTMState, Windows, whole
from qstudy.quant.fixed_point.linear import fixed_point_tanh, handed_over
from qstudy.quant.fixed_point.lstm import final_state, hidden_scale, lstm_operands, run_lstm, weight_scale
from qstudy.quant.fixed_point.norm import fixed_point_layer_norm
from qstudy.quant.fixed_point.operators import MAX_SHIFT, UNIT, FixedPoint, to_fixed, to_float
from qstudy.quant.fixed_point.softmax import fixed_point_probabilities
from qstudy.quant.integer.accumulator import accumulate, accumulate_block_diagonal, record
from qstudy.quant.packed.layer import Layout, StoredLayer
from qstudy.quant.packed.scaled import PackedScaled


class PackedFixedPoint(PackedScaled, name="fixed_point"):
    """One layer of a packed model: integer products, and an LSTM's cell in 16-bit fixed point.

    It runs the functions of `qstudy.quant.fixed_point.lstm`, as the training layer does, on the file's integers. The
    scales of an LSTM are requantizations: multiplier and shift in one int32 (`operators.requantization`).
    """

    def __init__(self, layer: StoredLayer) -> None:
        super().__init__(layer)
        self.spec = _spec(layer)

    @classmethod
    def takes(cls, shape: LayerShape, bits: LayerBits) -> bool:
        wide = (shape.matrices and bits.weight > 8) or (shape.activations and bits.activation > 8)
        known = bits.quantizer != "codebook" and bits.granularity != "group"
        return not wide and known and shape.kind != "matmul"

    @classmethod
    def layout(cls, shape: LayerShape, bits: LayerBits) -> Layout:
        layout = super().layout(shape, bits)
        return layout | {key: layout[key]._replace(dtype=torch.int32) for key in _requantizations(shape)}

    @classmethod
    def check(cls, layer: StoredLayer) -> None:
        super().check(layer)
        _spec(layer)
        name, tensors = layer.shape.name, layer.tensors
        if "activation" in tensors and tensors["activation"][:, 1].any():
            raise UserError(f"{name}.activation: the arithmetic `fixed_point` has no zero points")
        if any((tensors[key] & 0xFF > MAX_SHIFT).any() for key in _requantizations(layer.shape)):
            raise UserError(f"{name}: a requantization shifts by more than {MAX_SHIFT} bits")

    def float_matrices(self, matrices: list[Tensor]) -> list[Tensor]:
        if len(self.sizes) != 2:
            return super().float_matrices(matrices)
        inputs: list[Tensor | float] = [self.qparams(0).scale, hidden_scale(self.bits.activation)]
        scales = [weight_scale(self.scale(index), each, self.spec) for index, each in enumerate(inputs)]
        return [self.values(index) * scale.view(-1, 1) for index, scale in enumerate(scales)]

    def product(self, index: int, x: Tensor) -> Tensor:
        return self.linear(x, self.values(index), None)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        qparams = self.qparams(0)
        return self._handed_over(accumulate(qparams.quantize(x), qparams.zero_point, self.values(0)), bias)

    def block_diagonal_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows = whole) -> Tensor:
        qparams = self.qparams(0)
        codes = qparams.quantize(x.float())
        return self._handed_over(accumulate_block_diagonal(codes, qparams.zero_point, self.values(0), windows), bias)

    def tanh(self, x: Tensor) -> Tensor:
        return super().tanh(x) if self.spec.linear_fraction is None else fixed_point_tanh(x, self.spec)

    def _handed_over(self, accumulator: Tensor, bias: Tensor | None) -> Tensor:
        """What a linear layer makes of its accumulators (..., H) int32: float32."""
        record(accumulator)
        return handed_over(accumulator, self.qparams(0).scale, self.scale(0), bias, self.spec)

    def softmax(self, x: Tensor) -> Tensor:
        return fixed_point_probabilities(x, self.spec)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return fixed_point_layer_norm(x, weight, bias, eps, self.spec)

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        matrices, requantizations = ([part(0), part(1)] for part in (self.values, self.scale))
        operands = lstm_operands(matrices, requantizations, weights[2] + weights[3], self.bits.activation, self.spec)
        codes = self.qparams(0).quantize(x).transpose(0, 1).contiguous()
        h, c = to_fixed(state[0][0], UNIT), to_fixed(state[1][0], self.spec.cell_fraction, self.spec.cell_bounds)
        trace = run_lstm(codes, h, c, operands)
        last_h, last_c = final_state(h, trace, self.spec)
        return to_float(trace.outputs, UNIT).transpose(0, 1), (last_h.unsqueeze(0), last_c.unsqueeze(0))


def _spec(layer: StoredLayer) -> FixedPoint:
    return fill(FixedPoint, layer.settings, f"settings.{layer.shape.name}")


def _requantizations(shape: LayerShape) -> list[str]:
    """The tensors of a layer that hold multipliers and shifts."""
    return [f"{index}.scale" for index in range(len(shape.matrices))] if shape.kind == "lstm" else []
