"""Packed integers: what runs a packed layer with one scale per row or matrix."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from qstudy.bits import FLOAT, LayerBits, LayerShape
from qstudy.errors import UserError
from qstudy.quant.arithmetic import LSTMState
from qstudy.quant.integer.accumulator import QParams
from qstudy.quant.integer.layers import QuantizedWeight, integer_linear, integer_lstm
from qstudy.quant.kernels import usable
from qstudy.quant.packed.base import PackedArithmetic
from qstudy.quant.packed.fake import PackedFake
from qstudy.quant.packed.fused import LSTMProgram, PackedLSTM
from qstudy.quant.packed.matrix import ArrangedMatrix, StoredMatrix, unpack_qparams
from qstudy.quant.packed.rows import PackedRows
from qstudy.quant.packed.weights_only import PackedWeightsOnly


class PackedInteger(PackedArithmetic):
    """One layer whose weights and activations are both integers: exact products, the same as in native training."""

    def __init__(
        self, matrices: Sequence[ArrangedMatrix | StoredMatrix], qparams: Sequence[QParams], bias: Tensor | None
    ) -> None:
        """
        Args:
            matrices: arranged for the kernel of one-row products, or wider than it takes.
            quantizers: of the inputs and, for an LSTM, of the hidden state.
            bias: (rows,) float32.
        """
        super().__init__()
        self.matrices, self.qparams = list(matrices), list(qparams)
        arranged = [matrix for matrix in matrices if isinstance(matrix, ArrangedMatrix) and usable()]
        self.rows = PackedRows(arranged[0], qparams[0], bias) if len(arranged) == len(matrices) == 1 else None
        self.program: LSTMProgram | None = None
        if len(arranged) == 2 and bias is not None:
            self.program = LSTMProgram([PackedLSTM(arranged[0], arranged[1], (qparams[0], qparams[1]), bias)])

    @classmethod
    def check(cls, tensors: Mapping[str, Tensor], shape: LayerShape, bits: LayerBits) -> None:
        if bits.granularity == "group" and bits.weight != FLOAT:
            raise UserError(f"bit_map.{shape.name}: the arithmetic `integer` has no groups")
        super().check(tensors, shape, bits)

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], shape: LayerShape, bits: LayerBits) -> PackedArithmetic:
        """See `PackedArithmetic.unpack`; a layer that is an integer on one side only is run by another class."""
        if bits.weight == FLOAT:
            return PackedFake.unpack(tensors, shape, bits)
        if "activation" not in tensors:
            return PackedWeightsOnly.unpack(tensors, shape, bits)
        kind = ArrangedMatrix if max(bits.weight, bits.activation) <= 8 else StoredMatrix
        matrices = [kind(tensors, index, size, bits) for index, size in enumerate(shape.matrices)]
        return cls(matrices, unpack_qparams(tensors, bits), tensors.get("bias"))

    def float_matrices(self, matrices: list[Tensor]) -> list[Tensor]:
        return [matrix.integers() * matrix.scale.view(-1, 1) for matrix in self.matrices]

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.rows is not None and self.rows.accepts(x):
            return self.rows(x)
        return integer_linear(x, self._weight(0), None if bias is None else bias.detach(), self.qparams[0])

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        if self.program is not None and self.program.accepts(x):
            y, states = self.program(x, [state])
            return y, states[0]
        bias = (weights[2] + weights[3]).detach()
        return integer_lstm(x, state, self._weight(0), self._weight(1), bias, self.qparams[0], self.qparams[1])

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError("a table has no activations")

    def _weight(self, index: int) -> QuantizedWeight:
        matrix = self.matrices[index]
        return QuantizedWeight(None, matrix.integers(), matrix.scale)
