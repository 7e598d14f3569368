"""Packed integers: what runs a packed layer with one scale per row or matrix."""

from collections.abc import Sequence

from torch import Tensor, nn

from qstudy.bits import LayerBits, LayerShape
from qstudy.quant.arithmetic import LSTMState, Windows, whole
from qstudy.quant.integer.layers import WeightOperand, integer_linear, integer_lstm
from qstudy.quant.integer.whole_numbers import block_diagonal_integer_linear
from qstudy.quant.kernels import usable
from qstudy.quant.packed.layer import PackedArithmetic, StoredLayer
from qstudy.quant.packed.matrix import ArrangedMatrix, PlainMatrix
from qstudy.quant.packed.program import LSTMProgram, PackedLSTM, PackedRows, Unfit, packed_as
from qstudy.quant.stack import LSTMStack


class PackedInteger(PackedArithmetic, name="integer"):
    """One layer whose weights and activations are both integers: exact products, the same as in native training."""

    def __init__(self, layer: StoredLayer) -> None:
        """Matrices are arranged for the kernel of one-row products, unless they are wider than it takes."""
        super().__init__(layer)
        arranges = max(layer.bits.weight, layer.bits.activation) <= 8
        kind = ArrangedMatrix if arranges else PlainMatrix
        self.matrices = [kind(layer, index) for index in range(len(layer.shape.matrices))]
        self.qparams, bias = layer.qparams(), layer.tensors.get("bias")
        arranged = [matrix for matrix in self.matrices if isinstance(matrix, ArrangedMatrix) and usable()]
        self.rows = PackedRows(arranged[0], self.qparams[0], bias) if len(arranged) == 1 else None
        self.program: LSTMProgram | None = None
        if len(arranged) == 2 and bias is not None:
            self.program = LSTMProgram([PackedLSTM(arranged[0], arranged[1], (self.qparams[0], self.qparams[1]), bias)])

    @classmethod
    def takes(cls, shape: LayerShape, bits: LayerBits) -> bool:
        return shape.activations > 0 and super().takes(shape, bits)  # a table alone multiplies nothing

    def float_matrices(self, matrices: list[Tensor]) -> list[Tensor]:
        return [matrix.integers() * matrix.scale.view(-1, 1) for matrix in self.matrices]

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.rows is not None and self.rows.accepts(x):
            return self.rows(x)
        return integer_linear(x, self.operand(0), None if bias is None else bias.detach(), self.qparams[0])

    def block_diagonal_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows = whole) -> Tensor:
        return block_diagonal_integer_linear(x, self.operand(0), bias, self.qparams[0], windows)

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        if self.program is not None and self.program.accepts(x):
            y, states = self.program(x, [state])
            return y, states[0]
        bias = (weights[2] + weights[3]).detach()
        return integer_lstm(x, state, self.operand(0), self.operand(1), bias, self.qparams[0], self.qparams[1])

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        matrix, rows = self.matrices[0], ids.flatten()
        scale = matrix.scale if len(matrix.scale) == 1 else matrix.scale[rows]
        values = matrix.some(rows) * scale.unsqueeze(1)
        return values.view(*ids.shape, values.shape[1])

    def operand(self, index: int) -> WeightOperand:
        """The matrix of this number, for a product without gradient."""
        matrix = self.matrices[index]
        return WeightOperand(None, matrix.integers(), matrix.scale)


def fuse(model: nn.Module) -> None:
    """Give every stack of packed layers of one size its program; modules with a `fuse` of their own see to it."""
    for stack in model.modules():
        if callable(own := getattr(stack, "fuse", None)):
            own()
        if isinstance(stack, LSTMStack):
            stack.program = _stack_program(stack)


def _stack_program(stack: LSTMStack) -> LSTMProgram | None:
    """None where a layer is another: a class that derives from `PackedInteger` may compute otherwise."""
    try:
        programs = [packed_as(layer, PackedInteger).program for layer in stack]
    except Unfit:
        return None
    layers = [layer for program in programs if program for layer in program.layers]
    same = len({layer.hidden.columns for layer in layers}) == 1
    return LSTMProgram(layers) if same and all(programs) else None
