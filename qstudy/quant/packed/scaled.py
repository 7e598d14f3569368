"""What packed layers share whose numbers are looked up or multiplied: matrices, scales, an LSTM's frames."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from qstudy.bits import FLOAT
from qstudy.quant.arithmetic import LSTMState
from qstudy.quant.integer.accumulator import QParams
from qstudy.quant.packed.base import PackedArithmetic
from qstudy.quant.packed.layout import StoredLayer


class PackedScaled(PackedArithmetic):
    """One layer of a packed model as numbers and their scales; a subclass says what a product with a matrix is."""

    activation: Tensor | None
    """Scale and zero point (quantizers, 2) float32 of inputs and hidden state; None: float activations."""

    def __init__(self, layer: StoredLayer) -> None:
        super().__init__(layer)
        self.bits, self.sizes = layer.bits, layer.shape.matrices
        self.register_buffer("activation", layer.tensors.get("activation"))
        for index in range(len(self.sizes)):
            floats = layer.bits.weight == FLOAT
            values = layer.tensors[f"{index}.float"] if floats else layer.integers(index)
            self.register_buffer(f"values_{index}", values)
            self.register_buffer(f"scale_{index}", layer.tensors.get(f"{index}.scale"))

    @abstractmethod
    def product(self, index: int, x: Tensor) -> Tensor:
        """x (..., columns) float32 times the transposed matrix (rows, columns) of this number: (..., rows) float32."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = self.product(0, x)
        return y if bias is None else y + bias

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        gates = self.product(0, x) + (weights[2] + weights[3])
        y, h, c = self.frames(gates, state[0][0], state[1][0])
        return y, (h.unsqueeze(0), c.unsqueeze(0))

    def frames(self, gates: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The LSTM after its input product.

        Args:
            gates: from the inputs, biases included, (B, T, 4H) float32.
            h: (B, H) float32.
            c: likewise.

        Returns:
            Outputs (B, T, H), and h and c after the last frame.
        """
        outputs = []
        for gate in gates.unbind(1):
            i, f, g, o = (gate + self.product(1, h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        y = torch.stack(outputs, 1) if outputs else gates.new_empty(*gates.shape[:2], h.shape[1])
        return y, h, c

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        return self.rows(0, ids)

    def float_matrices(self, matrices: list[Tensor]) -> list[Tensor]:
        return [self.rows(index, torch.arange(rows)) for index, (rows, _) in enumerate(self.sizes)]

    def values(self, index: int) -> Tensor:
        """The matrix (rows, columns): integers, or floats where weights are."""
        values: Tensor = getattr(self, f"values_{index}")
        return values

    def scale(self, index: int) -> Tensor:
        """As the file has it: float32 (1,), (rows,) or (rows * groups,)."""
        scale: Tensor = getattr(self, f"scale_{index}")
        return scale

    def qparams(self, index: int) -> QParams:
        """Of what this matrix is multiplied with: inputs, then the hidden state."""
        assert self.activation is not None
        scale, zero_point = self.activation[index]
        return QParams(scale, zero_point, self.bits.activation)

    def rows(self, index: int, which: Tensor) -> Tensor:
        """The float values of some rows of a matrix: (..., columns) for their numbers (...) int64."""
        values = F.embedding(which, self.values(index)).float()
        if self.bits.weight == FLOAT:
            return values
        scales = self.scale(index)
        if len(scales) == 1:
            return values * scales
        scales = F.embedding(which, scales.view(self.sizes[index][0], -1))
        if scales.shape[-1] == 1:
            return values * scales
        return values * scales.repeat_interleave(self.bits.group, -1)[..., : values.shape[-1]]
