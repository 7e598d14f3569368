"""DRAM traffic of one matrix product whose operands all lie in DRAM: the best of three ways to tile it.

M input vectors (M, K) times weights (K, N): something has to stay on chip while the rest passes by, and what passes by
is read once per block of what stays. `tests/oracles/` checks it against ZigZag (Mei et al. 2021, arXiv 2007.11360).
"""

from typing import Any

import numpy as np

ACCUMULATOR_BYTES = 4


def gemm_dram_bytes(m: Any, k: Any, n: Any, weight_bits: Any, activation_bits: Any, capacity: Any) -> Any:
    """Least bytes between DRAM and `capacity` bytes of on-chip memory; arrays broadcast. Where no tile fits,
    nothing is used twice."""
    inputs, weights = k * activation_bits / 8, k * weight_bits / 8  # of one vector, of one output
    # Blocks of input vectors stay, and every output's weights pass by each of them; or the other way round.
    per_vector = _blocks(m, capacity - weights - ACCUMULATOR_BYTES, inputs + activation_bits / 8)
    per_output = _blocks(n, capacity - inputs - ACCUMULATOR_BYTES, weights + activation_bits / 8)
    read = np.minimum(m * inputs + n * weights * per_vector, n * weights + m * inputs * per_output)
    # Blocks of outputs stay as accumulators, and both operands pass by in slices of the inner dimension.
    for halvings in range(16):
        tall = np.maximum(np.ceil(m / 2**halvings), 1.0)
        slices = tall * activation_bits / 8
        wide = _blocks(n, capacity - slices, tall * ACCUMULATOR_BYTES + weight_bits / 8)
        read = np.minimum(read, m * inputs * wide + n * weights * np.ceil(m / tall))
    return np.minimum(read, m * n * (inputs + weights)) + m * n * activation_bits / 8


def _blocks(count: Any, room: Any, bytes_each: Any) -> Any:
    """Into how many blocks `count` things of `bytes_each` bytes are cut to fit into `room`; infinite if none fits.

    A block holds a power of two of them, as compilers like it, or that times 3, 5 or 7 where it divides them all
    (384 = 3 x 128, 640 = 5 x 128), or all.
    """
    each = np.floor(np.maximum(room, 0.0) / bytes_each)
    even = 2 ** np.floor(np.log2(np.maximum(each, 1.0)))
    for odd in (3, 5, 7):
        block = odd * 2 ** np.floor(np.log2(np.maximum(each / odd, 1.0)))
        even = np.where((block <= each) & (count % block == 0), np.maximum(even, block), even)
    return np.where(each >= count, 1.0, np.where(each >= 1, np.ceil(count / even), np.inf))
