"""Packed integer weights beside float activations: every weight becomes a float only inside the product."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from qstudy.bits import FLOAT, LayerBits, LayerShape
from qstudy.jit import compiled
from qstudy.quant.arithmetic import Windows, whole
from qstudy.quant.kernels import cell, usable
from qstudy.quant.packed.scaled import PackedScaled
from qstudy.threads import on_threads


class PackedWeightsOnly(PackedScaled, name="weights_only"):
    """One layer of a packed model without activation quantizers, tables included."""

    @classmethod
    def takes(cls, shape: LayerShape, bits: LayerBits) -> bool:
        floats = not shape.activations or bits.activation == FLOAT
        return bits.weight != FLOAT and floats and bits.granularity != "group"

    def product(self, index: int, x: Tensor) -> Tensor:
        return _multiply(x, self.values(index), self.scale(index))

    def block_diagonal_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows = whole) -> Tensor:
        y = windows.product(x, self.float_matrices([])[0])
        return y if bias is None else y + bias

    def frames(self, gates: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not usable(gates, h, c):
            return super().frames(gates, h, c)
        h, c, y = h.detach().clone(), c.detach().clone(), torch.empty(*gates.shape[:2], h.shape[1])
        scale = self.scale(1).expand(gates.shape[2]).contiguous()
        spread(recur, len(h), self.values(1), scale, gates, h, c, y)
        return y, h, c


def _multiply(x: Tensor, values: Tensor, scale: Tensor) -> Tensor:
    """x (..., D) float32 times integers (H, D), rescaled after the sum: (..., H) float32."""
    if not usable(x) or x.shape[-1] != values.shape[1]:  # the kernel would not notice, torch says so
        return x @ values.to(x.dtype).t() * scale
    y = torch.empty(*x.shape[:-1], len(values))
    flat = x.detach().reshape(-1, x.shape[-1]).contiguous()
    spread(multiply, len(flat), values, scale.expand(len(values)).contiguous(), flat, y.view(-1, len(values)))
    return y


def spread(kernel: Callable[..., None], rows: int, *operands: Tensor) -> None:
    """Run a kernel over so many rows, on torch's threads unless there is but one."""
    arrays = [each.detach().numpy() for each in operands]
    if rows == 1:
        kernel(*arrays, 0, 1)
    else:
        on_threads(kernel, *arrays)


@compiled(fastmath={"reassoc", "contract"})
def dot(weights, x):
    """Sum of integers times floats; in the order of the processor's vectors, the same whatever stands around it."""
    total = np.float32(0)
    for k in range(x.size):
        total += np.float32(weights[k]) * x[k]
    return total


@compiled()
def multiply(weights, scale, x, y, thread, threads):
    """Integers (H, D) times rows x (N, D), times scale (H,): y (N, H), written; all but the integers float32."""
    for output in range(weights.shape[0]):  # one row of weights at a time stays in the first-level cache
        for row in range(thread, x.shape[0], threads):
            y[row, output] = dot(weights[output], x[row]) * scale[output]


@compiled()
def recur(weights, scale, gates, h, c, y, thread, threads):
    """An LSTM layer after its input product.

    Args:
        weights: hidden weights (4H, H), integers.
        scale: (4H,) float32.
        gates: from the inputs, biases included, (B, T, 4H) float32; overwritten.
        h: (B, H) float32, moved on in place.
        c: likewise.
        y: outputs (B, T, H) float32, written.
        thread: number of this thread.
        threads: their number.
    """
    after, next_cell = np.empty(weights.shape[0], np.float32), np.empty(h.shape[1], np.float32)
    for t in range(gates.shape[1]):
        for row in range(thread, gates.shape[0], threads):
            before = gates[row, t]
            for output in range(weights.shape[0]):
                before[output] += dot(weights[output], h[row]) * scale[output]
            cell.activate(before, after)
            cell.advance(after, c[row], next_cell, y[row, t])
            c[row, :] = next_cell
            h[row, :] = y[row, t]
