"""Fake arithmetic: values are rounded by their quantizers, then computed in float."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from qstudy.quant.arithmetic import LSTMState, block_diagonal_product
from qstudy.quant.arithmetics.quantized import QuantizedArithmetic
from qstudy.quant.packed import PackedArithmetic, PackedGroups
from qstudy.quant.recurrence.frames import quantized_lstm


class FakeArithmetic(QuantizedArithmetic):
    """A layer whose weights, inputs and hidden state are fake-quantized; what has no quantizer stays in float."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(self._input(x), self._weight(0, weight), bias)

    def block_diagonal_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = block_diagonal_product(self._input(x), self._weight(0, weight))
        return y if bias is None else y + bias

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        w_input, w_hidden, b_input, b_hidden = weights
        x, w_input, w_hidden = self._input(x), self._weight(0, w_input), self._weight(1, w_hidden)
        if self.hidden is None or not self.hidden.fake_quant_enabled:
            flat = [w_input, w_hidden, b_input, b_hidden]
            y, h, c = torch._VF.lstm(x, state, flat, True, 1, 0.0, self.training, False, True)
            return self._recurred(y, state[0]), (h, c)
        quantizer, bias = self.hidden, b_input + b_hidden
        y, after = quantized_lstm(x, state, w_input, w_hidden, bias, quantizer.scale.detach(), quantizer.high)
        return self._recurred(y, state[0]), after


class GroupedArithmetic(FakeArithmetic):
    """Fake arithmetic with several scales per row: run by partial products."""

    @property
    def packed(self) -> type[PackedArithmetic]:
        return PackedGroups if self.quantizes_weights else super().packed
