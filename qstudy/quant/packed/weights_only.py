"""Packed integer weights beside float activations: every weight becomes a float only inside the product."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from qstudy.bits import LayerBits, LayerShape
from qstudy.jit import compiled
from qstudy.quant.arithmetic import LSTMState
from qstudy.quant.kernels import cell, usable
from qstudy.quant.packed.base import PackedArithmetic
from qstudy.quant.packed.matrix import StoredMatrix


class PackedWeightsOnly(PackedArithmetic):
    """One layer of a packed model without activation quantizers, tables included."""

    values_0: Tensor
    values_1: Tensor
    scale_0: Tensor
    scale_1: Tensor

    def __init__(self, matrices: Sequence[StoredMatrix]) -> None:
        super().__init__()
        self.count = len(matrices)
        for index, matrix in enumerate(matrices):
            self.register_buffer(f"values_{index}", matrix.values)
            self.register_buffer(f"scale_{index}", matrix.scale)

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], shape: LayerShape, bits: LayerBits) -> "PackedWeightsOnly":
        return cls([StoredMatrix(tensors, index, size, bits) for index, size in enumerate(shape.matrices)])

    def float_matrices(self, matrices: list[Tensor]) -> list[Tensor]:
        pairs = [(getattr(self, f"values_{i}"), getattr(self, f"scale_{i}")) for i in range(self.count)]
        return [values * scale.view(-1, 1) for values, scale in pairs]

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = _multiply(x, self.values_0, self.scale_0)
        return y if bias is None else y + bias

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        gates = _multiply(x, self.values_0, self.scale_0) + (weights[2] + weights[3])
        h, c = state[0][0], state[1][0]
        if not usable(gates, h, c):
            return self._portable_lstm(gates, h, c)
        h, c, y = h.detach().clone(), c.detach().clone(), torch.empty(*x.shape[:2], h.shape[1])
        scale = self.scale_1.expand(gates.shape[2]).contiguous()
        arrays = [each.detach().numpy() for each in (self.values_1, scale, gates, h, c, y)]
        recur(*arrays)
        return y, (h.unsqueeze(0), c.unsqueeze(0))

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        rows, scale = F.embedding(ids, self.values_0).float(), self.scale_0
        return rows * (scale if len(scale) == 1 else F.embedding(ids, scale[:, None]))

    def _portable_lstm(self, gates: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, LSTMState]:
        outputs = []
        for gate in gates.unbind(1):
            i, f, g, o = (gate + _multiply(h, self.values_1, self.scale_1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        y = torch.stack(outputs, 1) if outputs else gates.new_empty(*gates.shape[:2], h.shape[1])
        return y, (h.unsqueeze(0), c.unsqueeze(0))


def _multiply(x: Tensor, values: Tensor, scale: Tensor) -> Tensor:
    """x (..., D) float32 times integers (H, D), rescaled after the sum: (..., H) float32."""
    if not usable(x):
        return x @ values.to(x.dtype).t() * scale
    y = torch.empty(*x.shape[:-1], len(values))
    flat = x.detach().reshape(-1, x.shape[-1]).contiguous()
    multiply(
        values.numpy(), scale.expand(len(values)).contiguous().numpy(), flat.numpy(), y.view(-1, len(values)).numpy()
    )
    return y


@compiled(fastmath={"reassoc", "contract"})
def dot(weights, x):  # type: ignore[no-untyped-def]
    """Sum of integers times floats; in the order of the processor's vectors, the same whatever stands around it."""
    total = np.float32(0)
    for k in range(x.size):
        total += np.float32(weights[k]) * x[k]
    return total


@compiled()
def multiply(weights, scale, x, y):  # type: ignore[no-untyped-def]
    """Integers (H, D) times rows x (N, D), times scale (H,): y (N, H), written; all but the integers float32."""
    for output in range(weights.shape[0]):  # one row of weights at a time stays in the first-level cache
        for row in range(x.shape[0]):
            y[row, output] = dot(weights[output], x[row]) * scale[output]


@compiled()
def recur(weights, scale, gates, h, c, y):  # type: ignore[no-untyped-def]
    """An LSTM layer after its input product.

    Args:
        weights: hidden weights (4H, H), integers.
        scale: (4H,) float32.
        gates: from the inputs, biases included, (B, T, 4H) float32; overwritten.
        h: (B, H) float32, moved on in place.
        c: likewise.
        y: outputs (B, T, H) float32, written.
    """
    after, next_cell = np.empty(weights.shape[0], np.float32), np.empty(h.shape[1], np.float32)
    for t in range(gates.shape[1]):
        for row in range(gates.shape[0]):
            before = gates[row, t]
            for output in range(weights.shape[0]):
                before[output] += dot(weights[output], h[row]) * scale[output]
            cell.activate(before, after)
            cell.advance(after, c[row], next_cell, y[row, t])
            c[row, :] = next_cell
            h[row, :] = y[row, t]
