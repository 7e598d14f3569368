"""Quantizable operators without matrices: the product of two activations, softmax, layer normalization."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from qstudy.bits import LayerShape
from qstudy.quant.layers import UNKNOWN, Quantizable, Rate
from qstudy.quant.recurrence.cell import lstm_cell


class WithoutMatrices(Quantizable):
    """A layer that multiplies by no weight."""

    twin_state: tuple[str, ...] = ()

    def matrices(self) -> list[Tensor]:
        return []

    def bias_vector(self) -> Tensor | None:
        return None

    def set_float(self, matrices: list[Tensor], bias: Tensor | None) -> None:
        """There is nothing to load."""

    def drop_matrices(self) -> None:
        """There is nothing to forget."""


class LSTMCell(nn.Module):
    """The cell of an LSTM whose products are layers of their own. It is in float under every policy and stores nothing:
    it has a shape to be priced, and no slot."""

    def __init__(self, hidden: int, rate: Rate = UNKNOWN) -> None:
        """Args: H; how often it runs."""
        super().__init__()
        self.hidden_size = hidden
        self.rate = rate

    def forward(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Pre-activations (B, 4H) in torch's order and the cell state (B, H) to the next hidden and cell state."""
        return lstm_cell(gates, c)

    def shape(self, name: str) -> LayerShape:
        """What speed depends on."""
        return LayerShape(name, "lstm_cell", outputs=self.hidden_size, **self.rate._asdict())


class MatMul(WithoutMatrices):
    """`torch.matmul` with a slot: queries times keys, probabilities times values. Both operands have quantizers."""

    def __init__(self, inputs: int, outputs: int, unit: bool = False, rate: Rate = UNKNOWN, heads: int = 1) -> None:
        """
        Args:
            inputs: K, the inputs of an output, for the simulator.
            outputs: N of one frame over all heads, likewise.
            unit: the first operand is known to lie in [-1, 1], as probabilities do.
            rate: how often it runs.
            heads: how many products of K x N / heads it is.
        """
        super().__init__()
        self.arithmetic = None
        self.inputs, self.outputs, self.heads = inputs, outputs, heads
        self.bounded = (unit, False)
        self.rate = rate

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x (..., M, K) times y (..., K, N): (..., M, N)."""
        return torch.matmul(x, y) if self.arithmetic is None else self.arithmetic.matmul(x, y)

    def shape(self, name: str) -> LayerShape:
        shape = LayerShape(name, "matmul", activations=2, inputs=self.inputs, outputs=self.outputs, heads=self.heads)
        return replace(shape, **self.rate._asdict())


class Softmax(WithoutMatrices):
    """`nn.Softmax` over the last dimension with a slot: the fixed-point accelerator has its own."""

    bounded: tuple[bool, ...] = ()

    def __init__(self, values: int, rate: Rate = UNKNOWN) -> None:
        """Args: values of one frame, for the simulator; how often it runs."""
        super().__init__()
        self.arithmetic = None
        self.values = values
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """x (..., N), minus infinity where there is nothing to see: probabilities (..., N)."""
        return torch.softmax(x, -1) if self.arithmetic is None else self.arithmetic.softmax(x)

    def shape(self, name: str) -> LayerShape:
        return LayerShape(name, "softmax", outputs=self.values, **self.rate._asdict())


class LayerNorm(nn.LayerNorm, WithoutMatrices):
    """`nn.LayerNorm` of the last dimension with a slot: the fixed-point accelerator has its own."""

    twin_state = ("weight", "bias")
    bounded: tuple[bool, ...] = ()

    def __init__(self, size: int, rate: Rate = UNKNOWN) -> None:
        super().__init__(size)
        self.arithmetic = None
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D): (..., D)."""
        if self.arithmetic is None:
            return super().forward(x)
        return self.arithmetic.layer_norm(x, self.weight, self.bias, self.eps)

    def bias_vector(self) -> Tensor | None:
        return torch.cat([self.weight, self.bias]).detach()

    def set_float(self, matrices: list[Tensor], bias: Tensor | None) -> None:
        if bias is not None:
            self.weight.data.copy_(bias[: len(self.weight)])
            self.bias.data.copy_(bias[len(self.weight) :])

    def shape(self, name: str) -> LayerShape:
        size = len(self.weight)
        return LayerShape(name, "layer_norm", vectors=2 * size, outputs=size, **self.rate._asdict())
