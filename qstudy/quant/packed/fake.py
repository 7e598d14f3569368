"""Packed float weights beside quantized activations: the values are rounded by their quantizers, as in training."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from qstudy.bits import FLOAT
from qstudy.errors import UserError
from qstudy.quant.arithmetic import LSTMState, block_diagonal_product
from qstudy.quant.packed.layout import StoredLayer
from qstudy.quant.packed.scaled import PackedScaled
from qstudy.quant.recurrence.frames import quantized_recurrence


class PackedFake(PackedScaled, name="float_weights"):
    """One layer of a packed model that only has activation quantizers."""

    @classmethod
    def check(cls, layer: StoredLayer) -> None:
        if layer.bits.weight != FLOAT:
            raise UserError(f"bit_map.{layer.shape.name}: the arithmetic `float_weights` has no integer weights")
        super().check(layer)

    def product(self, index: int, x: Tensor) -> Tensor:
        return F.linear(self._fake_quantize(index, x), self.values(index))

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(self._fake_quantize(0, x), self.values(0), bias)

    def block_diagonal_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = block_diagonal_product(self._fake_quantize(0, x), self.values(0))
        return y if bias is None else y + bias

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        inputs, hidden = self._fake_quantize(0, x).transpose(0, 1), self.qparams(1)
        gates = F.linear(inputs, self.values(0), weights[2] + weights[3]).contiguous()
        levels = (hidden.scale, hidden.bounds()[1])
        y, h, c = quantized_recurrence(gates, state[0][0], state[1][0], self.values(1), *levels)
        return y.transpose(0, 1), (h.unsqueeze(0), c.unsqueeze(0))

    def _fake_quantize(self, index: int, x: Tensor) -> Tensor:
        qparams = self.qparams(index)
        return (qparams.quantize(x) - qparams.zero_point) * qparams.scale
