"""Compute cycles of a matrix product on a systolic array, or on the vector lanes of a CPU.

A product of M input vectors (M, K) with weights (K, N) is cut into tiles of the array's size; tiles at the edges take
as long as full ones. Tiles that follow each other serially take the cycles of SCALE-Sim (Samajdar et al. 2018, arXiv
1811.02883; Raj et al. 2025, arXiv 2504.15377), which `tests/oracles/` checks; tiles that overlap, those that
`tests/test_systolic.py` counts cell by cell.
"""

from typing import Any

import numpy as np

from qstudy.hardware.accelerator import Dataflow, Fill, Mode, Processor


def ceil_div(a: Any, b: Any) -> Any:
    """Integer division that rounds up, for numbers and arrays."""
    return -(-a // b)


def tiles(m: Any, k: Any, n: Any, rows: int, columns: int, dataflow: Dataflow) -> Any:
    """How many tiles the product is cut into; arrays broadcast."""
    if dataflow == "weight_stationary":
        return ceil_div(k, rows) * ceil_div(n, columns)
    if dataflow == "output_stationary":
        return ceil_div(m, rows) * ceil_div(n, columns)
    return m * n  # one dot product after the other


def array_cycles(
    m: Any, k: Any, n: Any, rows: int, columns: int, dataflow: Dataflow, fill: Fill = "serial", groups: Any = 1
) -> Any:
    """Cycles of (M, K) x (K, N) on one array of `rows` x `columns` cells, of `groups` such products one after the
    other; arrays broadcast.

    Weight-stationary: a tile of weights is loaded (rows), then M vectors stream through it, skewed (rows + columns - 2
    more). Output-stationary: K cycles stream past a tile of outputs, skewed alike; finished outputs leave while the
    others still run, one per column and cycle.

    `serial`: a tile begins when the one before has left the array. `overlapped`: every cell has a second register, for
    the next tile's weight or for the finished output, so that a tile's stream follows the one before it; but not
    sooner than each column, at one a cycle, has taken `rows` weights or given as many outputs. The first filling and
    the last emptying remain: one tile alone takes the same either way.
    """
    count = groups * tiles(m, k, n, rows, columns, dataflow)
    if dataflow == "vector":
        return count * ceil_div(k, rows * columns)
    stream = m if dataflow == "weight_stationary" else k
    alone = stream + rows + columns - 2 + (rows if dataflow == "weight_stationary" else 0)
    following = np.maximum(stream, rows) if fill == "overlapped" else alone
    return count * following + np.minimum(count, 1) * (alone - following)


def weight_tiles_and_cycles(m: Any, k: Any, n: Any, groups: Any, processor: Processor, mode: Mode) -> tuple[Any, Any]:
    """In how many portions the weights are fetched, and cycles, both of the slowest core.

    The N outputs are those of `groups` products with K inputs each of its own (heads; a grouped convolution), so that
    no tile serves two of them. Cores share the groups, and where they are more than those, each group's outputs. A mode
    of several multiply-accumulates per cell takes as many cycles of the inner dimension at once, and one below 1 takes
    that much longer.
    """
    turns, sharing = ceil_div(groups, processor.cores), np.maximum(processor.cores // groups, 1)
    n = ceil_div(ceil_div(n, groups), sharing)
    k = np.ceil(k / max(mode.macs, 1.0)).astype(np.int64)
    array = (processor.rows, processor.columns, processor.dataflow)
    cycles = array_cycles(m, k, n, *array, processor.fill, turns)
    return turns * tiles(1, k, n, *array), cycles / min(mode.macs, 1.0)
