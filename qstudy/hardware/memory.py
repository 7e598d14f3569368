"""Bytes that one run of each operator moves: weights that stay on chip, and those that are read again every time."""

from dataclasses import dataclass

import numpy as np

from qstudy.hardware.accelerator import Memory
from qstudy.hardware.size import packed_bytes
from qstudy.hardware.table import Columns, Widths
from qstudy.hardware.tiling import gemm_dram_bytes


@dataclass(frozen=True)
class Traffic:
    """Bytes per run of each operator; arrays (C, N)."""

    dram_bytes: np.ndarray
    sram_bytes: np.ndarray
    """Bytes through the port of the on-chip memory: weights, inputs and outputs, wherever they came from."""
    input_bytes: np.ndarray
    output_bytes: np.ndarray

    def seconds(self, memory: Memory) -> tuple[np.ndarray, np.ndarray]:
        """Time of DRAM and of the on-chip memory."""
        return self.dram_bytes / (memory.dram_gb_per_s * 1e9), self.sram_bytes / (memory.sram_gb_per_s * 1e9)

    def picojoules(self, memory: Memory) -> np.ndarray:
        """Energy of all bytes."""
        return self.dram_bytes * memory.dram_pj_per_byte + self.sram_bytes * memory.sram_pj_per_byte


def traffic(columns: Columns, bits: Widths, memory: Memory, rates: np.ndarray) -> Traffic:
    """Bytes moved per run, with weights kept on chip as far as they fit.

    On-chip memory holds the largest set of inputs and outputs of an operator first, then weights, those that are
    used most often before the others; what is left over is read from DRAM on every run. Recurrent layers that run
    over a whole chunk have that memory to themselves meanwhile, and read their weights once per chunk if they fit.
    Inputs and outputs that do not fit travel through DRAM, tile by tile.
    """
    weights = weight_bytes(columns, bits)
    values_in = np.where(columns.product > 0, columns.groups * columns.inputs, columns.outputs) * (1 - columns.lookup)
    inputs = columns.vectors * values_in * bits.activation / 8
    outputs = columns.vectors * columns.outputs * bits.activation / 8
    room = np.maximum(memory.sram_kib * 1024 - (inputs + outputs).max(axis=1, keepdims=True), 0.0)
    used_once = columns.reuse == 1
    in_a_row = np.maximum(weights - room, 0.0) + np.minimum(weights, room) / columns.reuse
    rows = np.where(columns.lookup > 0, np.minimum(columns.vectors / np.maximum(columns.inputs, 1), 1.0), 1.0)
    streamed = rows * np.where(used_once, _left_over(columns, weights * used_once, rates, room), in_a_row)
    too_large = inputs + outputs > memory.sram_kib * 1024
    if too_large.any():
        streamed = np.where(too_large, np.maximum(streamed, _spilled_bytes(columns, bits, memory)), streamed)
    return Traffic(streamed, weights * rows + inputs + outputs, inputs, outputs)


def _left_over(columns: Columns, weights: np.ndarray, rates: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Bytes of weights (C, N) that do not stay in `room` bytes (C, 1). A tied table takes its place once, for its
    scores, which read all of it; the share of it that is there is there for its rows, too."""
    own = columns.tables == np.arange(len(rates))
    left = weights - resident_bytes(weights * own, rates, room)
    return np.where(own, left, weights * (left / np.maximum(weights, 1))[:, columns.tables])


def _spilled_bytes(columns: Columns, bits: Widths, memory: Memory) -> np.ndarray:
    """Bytes per run of operators whose inputs and outputs do not fit on chip together, and lie in DRAM (C, N)."""
    second = np.where(columns.stored > 0, bits.weight, bits.activation)
    shape = (columns.vectors, np.maximum(columns.inputs, 1), -(-columns.outputs // columns.groups))
    tiled = columns.groups * gemm_dram_bytes(*shape, second, bits.activation, memory.sram_kib * 1024)
    passed = 2 * columns.vectors * columns.outputs * bits.activation / 8
    return np.where(columns.product > 0, tiled, passed)


def weights_read_per_second(columns: Columns, bits: Widths, rates: np.ndarray) -> np.ndarray:
    """Bytes of weights that a model reads per second (C,), if none stay on chip between runs.

    Runs in a row that use the same weights (a recurrent layer's over a chunk) read them once.

    Args:
        columns: the operators.
        bits: their widths.
        rates: runs per second of each operator (N,).
    """
    rows = np.where(columns.lookup > 0, np.minimum(columns.vectors / np.maximum(columns.inputs, 1), 1.0), 1.0)
    each = weight_bytes(columns, bits) * columns.stored * rows / columns.reuse
    total: np.ndarray = each @ rates
    return total


def weight_bytes(columns: Columns, bits: Widths) -> np.ndarray:
    """Bytes of each operator's second operand and constants (C, N): packed weights, or kept activations."""
    table = columns.lookup > 0  # whose rows are looked up, not multiplied
    rows = np.where(table, columns.inputs, columns.outputs)
    row = np.where(table, columns.outputs, columns.inputs)
    packed = packed_bytes(rows, row, bits.weight, bits.codebook, bits.per_scale)
    kept = columns.inputs * columns.outputs * bits.activation / 8  # keys and values
    second = np.where(columns.stored > 0, packed, kept) * (columns.inputs > 0)
    return second + 4 * columns.constants


def resident_bytes(weights: np.ndarray, rates: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """How much of each operator's weights (C, N) stays in `capacity` bytes (C, 1): in falling order of use.

    The order does not depend on the widths, so that fewer bits in one layer never push another one out.
    """
    order = np.argsort(-rates, kind="stable")
    before = np.cumsum(weights[:, order], axis=1) - weights[:, order]
    kept = np.empty_like(weights, dtype=np.float64)
    kept[:, order] = np.clip(capacity - before, 0, weights[:, order])
    return kept
