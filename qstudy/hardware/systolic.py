"""Compute cycles of a matrix product on a systolic array, or on the vector lanes of a CPU.

A product of M input vectors (M, K) with weights (K, N) is cut into tiles of the array's size; tiles at the edges take
as long as full ones. The array's cycle counts are those of SCALE-Sim (Samajdar et al. 2018, arXiv 1811.02883;
Raj et al. 2025, arXiv 2504.15377), which `tests/oracles/` checks.
"""

from typing import Any

import numpy as np

from qstudy.hardware.accelerator import Mode, Processor


def ceil_div(a: Any, b: Any) -> Any:
    """Integer division that rounds up, for numbers and arrays."""
    return -(-a // b)


def tiles(m: Any, k: Any, n: Any, rows: int, columns: int, dataflow: str) -> Any:
    """How many tiles the product is cut into; arrays broadcast."""
    if dataflow == "weight_stationary":
        return ceil_div(k, rows) * ceil_div(n, columns)
    if dataflow == "output_stationary":
        return ceil_div(m, rows) * ceil_div(n, columns)
    return m * n  # one dot product after the other


def array_cycles(m: Any, k: Any, n: Any, rows: int, columns: int, dataflow: str) -> Any:
    """Cycles of (M, K) x (K, N) on one array of `rows` x `columns` cells; arrays broadcast.

    Weight-stationary: a tile of weights is loaded (rows), then M vectors stream through it, skewed (rows + columns - 2
    more). Output-stationary: K cycles stream past a tile of outputs, skewed alike; finished outputs leave while the
    others still run.
    """
    count = tiles(m, k, n, rows, columns, dataflow)
    if dataflow == "weight_stationary":
        return count * (2 * rows + columns + m - 2)
    if dataflow == "output_stationary":
        return count * (rows + columns + k - 2)
    return count * ceil_div(k, rows * columns)


def weight_tiles_and_cycles(m: Any, k: Any, n: Any, processor: Processor, mode: Mode) -> tuple[Any, Any]:
    """In how many portions the weights are fetched, and cycles, both of the slowest core.

    Cores share the output channels; a mode of several multiply-accumulates per cell takes as many cycles of the inner
    dimension at once, and one below 1 takes that much longer.
    """
    n = ceil_div(n, processor.cores)
    k = np.ceil(k / max(mode.macs, 1.0)).astype(np.int64)
    array = (processor.rows, processor.columns, processor.dataflow)
    return tiles(1, k, n, *array), array_cycles(m, k, n, *array) / min(mode.macs, 1.0)
