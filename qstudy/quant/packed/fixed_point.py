"""Packed fixed point: what runs a packed layer that was trained as a fixed-point accelerator computes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from qstudy.bits import LayerBits, LayerShape
from qstudy.errors import UserError
from qstudy.fields import fill
from qstudy.quant.arithmetic import LSTMState
from qstudy.quant.fixed_point.lstm import final_state, hidden_scale, lstm_operands, run_lstm, weight_scale
from qstudy.quant.fixed_point.operators import MAX_SHIFT, UNIT, FixedPoint, to_fixed, to_float
from qstudy.quant.integer.accumulator import QParams, accumulate, record, rescale
from qstudy.quant.packed.base import PackedArithmetic
from qstudy.quant.packed.bitpack import unpack
from qstudy.quant.packed.layout import compare, layer_layout


class PackedFixedPoint(PackedArithmetic):
    """One layer of a packed model: integer products, and an LSTM's cell in 16-bit fixed point.

    It runs the functions of `qstudy.quant.fixed_point.lstm`, as the training layer does, on the file's integers.
    """

    qparams: Tensor | None
    values_0: Tensor
    values_1: Tensor
    scale_0: Tensor
    scale_1: Tensor

    def __init__(self, matrices: Sequence[Tensor], scales: Sequence[Tensor], qparams: Tensor | None, bits: int) -> None:
        """
        Args:
            matrices: (rows, columns) int8 each.
            scales: (rows,) or (1,) each: float32, or for an LSTM int32 words (`fixed_point.requantization`).
            quantizers: scale and zero point (quantizers, 2) float32 of inputs and hidden state; None for a table.
            bits: width of the activations.
        """
        super().__init__()
        for index, (matrix, scale) in enumerate(zip(matrices, scales, strict=True)):
            self.register_buffer(f"values_{index}", matrix)
            self.register_buffer(f"scale_{index}", scale)
        self.register_buffer("qparams", qparams)
        self.bits = bits
        self.spec = FixedPoint()

    @classmethod
    def check(cls, tensors: Mapping[str, Tensor], shape: LayerShape, bits: LayerBits) -> None:
        wide = bits.weight > 8 or (shape.activations and bits.activation > 8)
        if wide or bits.quantizer == "codebook" or bits.granularity == "group":
            raise UserError(f"bit_map.{shape.name}: the arithmetic `fixed_point` does not compute in these widths")
        layout = layer_layout(shape, bits)
        words = [f"{i}.scale" for i in range(len(shape.matrices))] if shape.kind == "lstm" else []
        compare(shape.name, tensors, layout | {key: layout[key]._replace(dtype=torch.int32) for key in words})
        if "activation" in tensors and tensors["activation"][:, 1].any():
            raise UserError(f"{shape.name}.activation: the arithmetic `fixed_point` has no zero points")
        if any((tensors[key] & 0xFF > MAX_SHIFT).any() for key in words):
            raise UserError(f"{shape.name}: a requantization shifts by more than {MAX_SHIFT} bits")

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], shape: LayerShape, bits: LayerBits) -> "PackedFixedPoint":
        matrices = [unpack(tensors[f"{i}.codes"], bits.weight, size) for i, size in enumerate(shape.matrices)]
        scales = [tensors[f"{i}.scale"] for i in range(len(matrices))]
        return cls(matrices, scales, tensors.get("activation"), bits.activation)

    def configure(self, settings: Mapping[str, Any]) -> None:
        self.spec = fill(FixedPoint, settings, "settings")

    def float_matrices(self, matrices: list[Tensor]) -> list[Tensor]:
        if self.scale_0.dtype is not torch.int32:
            return [self.values_0 * self.scale_0.view(-1, 1)]
        # an LSTM: its scales are words that take products to gates
        steps: list[Tensor | float] = [self._qparams().scale, hidden_scale(self.bits)]
        scales = [weight_scale(w, step, self.spec) for w, step in zip((self.scale_0, self.scale_1), steps, strict=True)]
        return [v * scale.view(-1, 1) for v, scale in zip((self.values_0, self.values_1), scales, strict=True)]

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        qparams = self._qparams()
        accumulator = accumulate(qparams.quantize(x), qparams.zero_point, self.values_0)
        record(accumulator)
        y = rescale(accumulator, qparams.scale, self.scale_0)
        return y if bias is None else y + bias

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        words, matrices = (self.scale_0, self.scale_1), (self.values_0, self.values_1)
        operands = lstm_operands(matrices, words, weights[2] + weights[3], self.bits, self.spec)
        codes = self._qparams().quantize(x).transpose(0, 1).contiguous()
        h, c = to_fixed(state[0][0], UNIT), to_fixed(state[1][0], self.spec.cell_fraction)
        trace = run_lstm(codes, h, c, operands)
        last_h, last_c = final_state(h, trace, self.spec)
        return to_float(trace.outputs, UNIT).transpose(0, 1), (last_h.unsqueeze(0), last_c.unsqueeze(0))

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        scale = self.scale_0
        return F.embedding(ids, self.values_0).float() * (
            scale if len(scale) == 1 else F.embedding(ids, scale[:, None])
        )

    def _qparams(self) -> QParams:
        assert self.qparams is not None, "a product has an input quantizer"
        step, zero_point = self.qparams[0]
        return QParams(step, zero_point, self.bits)
