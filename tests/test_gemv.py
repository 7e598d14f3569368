"""The kernels of one-row products equal NumPy to the bit, with whatever instructions the processor has."""

import numpy as np
from hypothesis import assume, example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from qstudy.quant.kernels import gemv

SHAPES = st.tuples(st.integers(1, 300), st.integers(1, 130))
EXTREMES = st.sampled_from(["random", "least", "greatest", "mixed"])


def inputs(columns: int, width: int, kind: str, seed: int) -> NDArray[np.uint8]:
    """QuantizedMatrix + 128, zeros beyond the columns."""
    generator = np.random.default_rng(seed)
    x = np.zeros(width, np.uint8)
    values = {"least": np.zeros, "greatest": lambda n: np.full(n, 255)}
    x[:columns] = values.get(kind, lambda n: generator.integers(0, 256, n))(columns)
    return x


def computed(x: NDArray[np.uint8], indices: NDArray[np.uint8], table: NDArray[np.int8], bits: int) -> NDArray[np.int32]:
    """The kernel's sums (rows,), begun at 1000 times the row's number."""
    arranged = gemv.arrange(indices, bits)
    tables = gemv.tables(np.resize(table, 2**bits), bits)
    sums = 1000 * np.arange(len(arranged) * gemv.ROWS, dtype=np.int32)
    places = [array.ctypes.data for array in (x, arranged, tables, sums)]
    gemv.product(bits, places[0], places[1], arranged.shape[1], places[2], places[3], len(arranged))
    return sums[: len(indices)]


@given(SHAPES, st.sampled_from(gemv.WIDTHS), EXTREMES, EXTREMES, st.integers(0, 2**32 - 1))
@example((640, 700), 8, "greatest", "least", 0)  # the largest sums: 255 * -128 each
@example((1, 1), 3, "greatest", "greatest", 0)
def test_equal_to_numpy(shape: tuple[int, int], bits: int, x_kind: str, w_kind: str, seed: int) -> None:
    assume(bits in gemv.WIDTHS)  # an example's may have no kernel on this processor
    generator = np.random.default_rng(seed)
    if bits == 8:
        low, high = {"least": (-128, -127), "greatest": (127, 128)}.get(w_kind, (-128, 128))
        weight = generator.integers(low, high, shape).astype(np.int8)
        indices, table = weight.view(np.uint8), np.zeros(1, np.int8)
    else:
        table = generator.integers(-128, 128, 2**bits).astype(np.int8)
        table[[0, -1]] = -128, 127
        low, high = {"least": (0, 1), "greatest": (2**bits - 1, 2**bits)}.get(w_kind, (0, 2**bits))
        indices = generator.integers(low, high, shape).astype(np.uint8)
        weight = table[indices]
    x = inputs(shape[1], gemv.steps(shape[1], bits) * 4 * len(gemv.FIELDS[bits]), x_kind, seed)
    start = 1000 * np.arange(shape[0])
    expected = start + weight.astype(np.int64) @ x[: shape[1]].astype(np.int64)
    assert np.array_equal(gemv.reference(x[: shape[1]], weight, start), expected)
    assert np.array_equal(computed(x, indices, table, bits), expected)


@given(SHAPES, st.sampled_from(gemv.WIDTHS), st.integers(0, 2**32 - 1))
def test_arranging_keeps_every_bit_once(shape: tuple[int, int], bits: int, seed: int) -> None:
    indices = np.random.default_rng(seed).integers(0, 2**bits, shape).astype(np.uint8)
    arranged = gemv.arrange(indices, bits)
    assert np.array_equal(gemv.restore(arranged, bits, *shape), indices)
    padded_rows, padded_columns = len(arranged) * gemv.ROWS, arranged.shape[1] * 4 * len(gemv.FIELDS[bits])
    assert arranged.nbytes * 8 == padded_rows * padded_columns * bits
    assert padded_rows - shape[0] < gemv.ROWS
    assert padded_columns - shape[1] < 4 * len(gemv.FIELDS[bits])
