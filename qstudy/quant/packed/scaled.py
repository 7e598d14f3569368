"""Packed layers whose numbers are looked up or multiplied, with their scales: float weights, and groups of columns."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from qstudy.bits import FLOAT, LayerBits, LayerShape
from qstudy.quant.arithmetic import LSTMState, Windows, whole
from qstudy.quant.integer.accumulator import QParams, accumulate, rescale
from qstudy.quant.packed.layer import PackedArithmetic, StoredLayer
from qstudy.quant.recurrence.frames import quantized_recurrence


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
        """Of what this matrix is multiplied with: inputs, then the hidden state; `takes` says that there are any."""
        assert self.activation is not None
        scale, zero_point = self.activation[index]
        return QParams.read(scale, zero_point, self.bits.activation)

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


class PackedFake(PackedScaled, name="float_weights"):
    """One layer of a packed model that only has activation quantizers: float weights beside fake-quantized activations,
    computed as in training."""

    @classmethod
    def takes(cls, shape: LayerShape, bits: LayerBits) -> bool:
        return bits.weight == FLOAT

    def product(self, index: int, x: Tensor) -> Tensor:
        return F.linear(self._fake_quantize(index, x), self.values(index))

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(self._fake_quantize(0, x), self.values(0), bias)

    def block_diagonal_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows = whole) -> Tensor:
        y = windows.product(self._fake_quantize(0, x), self.values(0))
        return y if bias is None else y + bias

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        inputs, hidden = self._fake_quantize(0, x).transpose(0, 1), self.qparams(1)
        gates = F.linear(inputs, self.values(0), weights[2] + weights[3]).contiguous()
        levels = (hidden.scale, hidden.bounds()[1])
        y, h, c = quantized_recurrence(gates, state[0][0], state[1][0], self.values(1), *levels)
        return y.transpose(0, 1), (h.unsqueeze(0), c.unsqueeze(0))

    def _fake_quantize(self, index: int, x: Tensor) -> Tensor:
        qparams = self.qparams(index)
        return qparams.values(qparams.quantize(x))


class PackedGroups(PackedScaled, name="grouped"):
    """One layer of a packed model with a scale for each group of columns: a product per group, summed in float.

    Made to be right, not fast: a device that wants speed has one scale per row.
    """

    @classmethod
    def takes(cls, shape: LayerShape, bits: LayerBits) -> bool:
        return bits.weight != FLOAT and bits.granularity == "group" and bits.quantizer != "codebook"

    def product(self, index: int, x: Tensor) -> Tensor:
        values = self.values(index)
        if self.activation is None:  # the matrix becomes float for the length of this call
            return x @ self.rows(index, torch.arange(len(values))).t()
        qparams, group = self.qparams(index), self.bits.group
        scales = self.scale(index).view(len(values), -1)
        parts = zip(qparams.quantize(x).split(group, -1), values.split(group, -1), scales.t(), strict=True)
        y = x.new_zeros(*x.shape[:-1], len(values))
        for part, matrix, scale in parts:
            sums = accumulate(part.contiguous(), qparams.zero_point, matrix.contiguous())
            y += rescale(sums, qparams.scale, scale)
        return y
