"""One weight matrix of a packed layer: as the kernel of one-row products wants it, or as plain integers."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from qstudy.jit import address_of
from qstudy.quant.integer.accumulator import QParams
from qstudy.quant.kernels import gemv
from qstudy.quant.packed.bitpack import unpack
from qstudy.quant.packed.layer import StoredLayer
from qstudy.quant.packed.loops import CODE_OFFSET


@cache
def _product() -> int:
    """The address of the kernel."""
    return address_of(gemv.product, 9)


class ArrangedMatrix:
    """Integers of at most 8 bits in the layout of `kernels.gemv`; 5 to 7 bits take a byte each.

    Attributes:
        scale: (rows,) or (1,) float32.
        rows: outputs.
        columns: inputs.
    """

    def __init__(self, layer: StoredLayer, index: int) -> None:
        """Args: the layer, and the number of the matrix in it."""
        size, width = layer.shape.matrices[index], layer.bits.weight
        self.scale = layer.tensors[f"{index}.scale"]
        self.rows, self.columns = size
        integers = layer.integers(index)
        self.bits = width if width in gemv.WIDTHS else 8
        if self.bits == 8:
            indices, numbers = integers, torch.zeros(1, dtype=torch.int8)
        else:
            indices = unpack(layer.tensors[f"{index}.codes"], width, size) & 2**width - 1
            numbers = layer.tensors.get(f"{index}.table", _signed(width))
        self._numbers = numbers
        looked_up = np.resize(numbers.numpy(), 2**self.bits)
        self._kernel = -self.bits if gemv.is_small(looked_up, self.bits) else self.bits
        self._tables = torch.from_numpy(gemv.tables(looked_up, self.bits))
        arranged = gemv.arrange(indices.view(torch.uint8).numpy(), self.bits)
        self._weights = torch.from_numpy(arranged).clone()  # torch's memory starts where a cache line does
        self._row_sums = torch.zeros(len(arranged) * gemv.ROWS, dtype=torch.int32)
        self._row_sums[: self.rows] = integers.sum(1, dtype=torch.int32)

    @property
    def padded_columns(self) -> int:
        """Codes of one row that the kernel reads, padding included."""
        return self._weights.shape[1] * gemv.COLUMNS

    @property
    def padded_rows(self) -> int:
        """Sums that the kernel writes."""
        return len(self._row_sums)

    def plan(self, qparams: QParams) -> tuple[list[int], list[Tensor]]:
        """A matrix's part of a plan (see `loops`) for inputs quantized so, and what must live as long as the plan."""
        zero_point = int(qparams.zero_point or 0)
        start = self._row_sums * -(int(CODE_OFFSET) + zero_point)  # takes offset and zero point back
        scale = (qparams.scale * self.scale).expand(self.rows).contiguous()
        limits = torch.tensor([float(qparams.scale), zero_point, *qparams.bounds()])
        blocks, count = self._weights.shape[:2]
        alive = [self._weights, self._tables, start, scale, limits]
        addresses = [each.data_ptr() for each in alive]
        return [_product(), self._kernel, addresses[0], count, addresses[1], blocks, *addresses[2:]], alive

    def integers(self) -> Tensor:
        """The matrix (rows, columns) int8, made anew at each call."""
        return self._restored(self._weights, self.rows)

    def some(self, rows: Tensor) -> Tensor:
        """Some of the rows, by their numbers (N,) int64: (N, columns) int8; their blocks are unpacked, each once.

        Raises:
            IndexError: there is no such row.
        """
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < self.rows:
            raise IndexError(f"A row is not one of the {self.rows} that there are.")
        blocks, places = torch.unique(rows // gemv.ROWS, return_inverse=True)
        restored = self._restored(self._weights[blocks], len(blocks) * gemv.ROWS)
        return restored[places * gemv.ROWS + rows % gemv.ROWS]

    def _restored(self, blocks: Tensor, rows: int) -> Tensor:
        indices = torch.from_numpy(gemv.restore(blocks.numpy(), self.bits, rows, self.columns))
        return indices.view(torch.int8) if self.bits == 8 else self._numbers[indices.int()]


class PlainMatrix:
    """Integers in rows, int8, or int16 above 8 bits: what has no kernel of its own.

    Attributes:
        values: (rows, columns).
        scale: (rows,) or (1,) float32.
    """

    def __init__(self, layer: StoredLayer, index: int) -> None:
        """Args: as `ArrangedMatrix`."""
        self.values, self.scale = layer.integers(index), layer.tensors[f"{index}.scale"]

    def integers(self) -> Tensor:
        """The matrix (rows, columns)."""
        return self.values

    def some(self, rows: Tensor) -> Tensor:
        """Some of the rows, by their numbers (N,) int64: (N, columns)."""
        return self.values[rows]


def _signed(bits: int) -> Tensor:
    """The integer that each index of a uniform quantizer stands for: two's complement."""
    return torch.from_numpy(np.roll(np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1), dtype=np.int8), 2 ** (bits - 1)))
