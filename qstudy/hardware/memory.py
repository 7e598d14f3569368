"""Bytes that one run of each operator moves: weights that stay on chip, and those that are read again every time."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qstudy.hardware.accelerator import Memory
from qstudy.hardware.size import packed_bytes

if TYPE_CHECKING:
    from qstudy.hardware.cost import Columns, Widths


@dataclass(frozen=True)
class Traffic:
    """Bytes per run of each operator; arrays (C, N)."""

    dram_bytes: np.ndarray
    sram_bytes: np.ndarray
    """Bytes through the port of the on-chip memory: weights, inputs and outputs, wherever they came from."""
    input_bytes: np.ndarray
    output_bytes: np.ndarray

    def seconds(self, memory: Memory) -> np.ndarray:
        """Time of the slower of the two memories: they work side by side."""
        return np.maximum(
            self.dram_bytes / (memory.dram_gb_per_s * 1e9), self.sram_bytes / (memory.sram_gb_per_s * 1e9)
        )

    def picojoules(self, memory: Memory) -> np.ndarray:
        """Energy of all bytes."""
        return self.dram_bytes * memory.dram_pj_per_byte + self.sram_bytes * memory.sram_pj_per_byte


def traffic(columns: "Columns", bits: "Widths", memory: Memory, rates: np.ndarray) -> Traffic:
    """Bytes moved per run, with weights kept on chip as far as they fit.

    On-chip memory holds the largest set of inputs and outputs of an operator first, then weights, those that are
    used most often before the others; what is left over is read from DRAM on every run.
    """
    weights = weight_bytes(columns, bits)
    per_value = bits.activation / 8
    inputs = np.where(columns.lookup > 0, 0.0, columns.vectors * columns.inputs * per_value)
    inputs = np.where(columns.inputs > 0, inputs, columns.vectors * columns.outputs * per_value)
    outputs = columns.vectors * columns.outputs * per_value
    second = np.where(columns.stored > 0, 0.0, columns.inputs * columns.outputs * per_value)
    capacity = memory.sram_kib * 1024
    buffers = np.minimum((inputs + outputs + second).max(axis=1, keepdims=True), capacity)
    streamed = weights - resident_bytes(weights, rates, capacity - buffers)
    used = np.where(columns.lookup > 0, columns.vectors / np.maximum(columns.inputs, 1), 1.0)  # a few rows of a table
    used = np.minimum(used, 1.0)
    return Traffic(streamed * used, weights * used + inputs + outputs + second, inputs, outputs)


def weight_bytes(columns: "Columns", bits: "Widths") -> np.ndarray:
    """Packed bytes of each operator's weights and constants (C, N)."""
    stored = columns.stored * (columns.inputs > 0)
    packed = packed_bytes(columns.outputs, columns.inputs, bits.weight, bits.codebook, bits.per_tensor)
    return packed * stored + 4 * columns.constants


def resident_bytes(weights: np.ndarray, rates: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """How much of each operator's weights (C, N) stays in `capacity` bytes (C, 1): in falling order of use.

    The order does not depend on the widths, so that fewer bits in one layer never push another one out.
    """
    order = np.argsort(-rates, kind="stable")
    before = np.cumsum(weights[:, order], axis=1) - weights[:, order]
    kept = np.empty_like(weights, dtype=np.float64)
    kept[:, order] = np.clip(capacity - before, 0, weights[:, order])
    return kept
