"""Packed float weights beside quantized activations: the values are rounded by their quantizers, as in training."""

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn import functional as F

from qstudy.bits import LayerBits, LayerShape
from qstudy.quant.arithmetic import LSTMState
from qstudy.quant.integer.accumulator import QParams
from qstudy.quant.packed.base import PackedArithmetic
from qstudy.quant.packed.matrix import unpack_qparams
from qstudy.quant.recurrence.frames import quantized_recurrence


class PackedFake(PackedArithmetic):
    """One layer of a packed model that only has activation quantizers."""

    values_0: Tensor
    values_1: Tensor

    def __init__(self, matrices: Sequence[Tensor], qparams: Sequence[QParams]) -> None:
        """Args: float weights (rows, columns) each; quantizers of the inputs and, for an LSTM, of the hidden state."""
        super().__init__()
        for index, matrix in enumerate(matrices):
            self.register_buffer(f"values_{index}", matrix)
        self.qparams = list(qparams)

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], shape: LayerShape, bits: LayerBits) -> "PackedFake":
        matrices = [tensors[f"{index}.float"] for index in range(len(shape.matrices))]
        return cls(matrices, unpack_qparams(tensors, bits))

    def float_matrices(self, matrices: list[Tensor]) -> list[Tensor]:
        return list(self.buffers())

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(self._fake_quantize(x), self.values_0, bias)

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        gates = F.linear(self._fake_quantize(x).transpose(0, 1), self.values_0, weights[2] + weights[3]).contiguous()
        step, high = self.qparams[1].scale, self.qparams[1].bounds()[1]
        y, h, c = quantized_recurrence(gates, state[0][0], state[1][0], self.values_1, step, high)
        return y.transpose(0, 1), (h.unsqueeze(0), c.unsqueeze(0))

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        return F.embedding(ids, self.values_0)

    def _fake_quantize(self, x: Tensor) -> Tensor:
        qparams = self.qparams[0]
        return (qparams.quantize(x) - qparams.zero_point) * qparams.scale
