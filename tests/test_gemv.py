"""The kernels of few-row products equal NumPy to the bit, with whatever instructions the processor has."""

import numpy as np
from hypothesis import assume, example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from qstudy.quant.kernels import gemv

ROWS = st.integers(1, 2 * gemv.HEIGHT + 1)
SHAPES = st.tuples(st.integers(1, 300), st.integers(1, 130))
EXTREMES = st.sampled_from(["random", "least", "greatest", "mixed"])


def inputs(generator: np.random.Generator, rows: int, columns: int, kind: str) -> NDArray[np.uint8]:
    """Codes + 128 (rows, columns)."""
    values = {"least": np.zeros, "greatest": lambda size: np.full(size, 255)}
    return values.get(kind, lambda size: generator.integers(0, 256, size))((rows, columns)).astype(np.uint8)


def spread(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Codes as the kernel wants them: zeros behind them, and their other forms."""
    width = gemv.steps(x.shape[1]) * gemv.COLUMNS
    codes = np.zeros((len(x), gemv.FORMS * width), np.uint8)
    codes[:, : x.shape[1]] = x
    for row in codes:
        gemv.spread(row, width)
    return codes


def computed(
    x: NDArray[np.uint8], indices: NDArray[np.uint8], table: NDArray[np.int8], bits: int, backwards: bool
) -> NDArray[np.int32]:
    """The kernel's sums (N, rows), begun at 1000 times the row's number."""
    arranged, numbers, codes = gemv.arrange(indices, bits), np.resize(table, 2**bits), spread(x)
    tables, kind = gemv.tables(numbers, bits), -bits if gemv.is_small(numbers, bits) else bits
    sums = np.tile(1000 * np.arange(len(arranged) * gemv.ROWS, dtype=np.int32), (len(x), 1))
    places = [array.ctypes.data for array in (codes, arranged, tables, sums)]
    gemv.product(
        kind, places[0], places[1], arranged.shape[1], places[2], places[3], len(arranged), len(x), int(backwards)
    )
    return sums[:, : len(indices)]


@given(SHAPES, ROWS, st.sampled_from(gemv.WIDTHS), EXTREMES, EXTREMES, st.booleans(), st.integers(0, 2**32 - 1))
@example((640, 700), 4, 8, "greatest", "least", False, 0)  # the largest sums: 255 * -128 each
@example((40, 700), 3, 4, "greatest", "greatest", True, 0)  # the largest that sums of 16 bits must hold: 255 * 8
@example((1, 1), 1, 3, "greatest", "greatest", False, 0)
def test_equal_to_numpy(
    shape: tuple[int, int], rows: int, bits: int, x_kind: str, w_kind: str, small: bool, seed: int
) -> None:
    assume(bits in gemv.WIDTHS)  # an example's may have no kernel on this processor
    generator = np.random.default_rng(seed)
    least, most = (-gemv.SMALL, gemv.SMALL) if small else (-128, 127)
    table = generator.integers(least, most, 2**bits, endpoint=True).astype(np.int8)
    if bits == 8:
        table = np.arange(256, dtype=np.uint8).view(np.int8)
    else:
        table[[0, -1]] = least, most
    least, most = (128, 127) if bits == 8 else (0, 2**bits - 1)  # where the least and the greatest number are
    low, high = {"least": (least, least + 1), "greatest": (most, most + 1)}.get(w_kind, (0, 2**bits))
    indices = generator.integers(low, high, shape).astype(np.uint8)
    x, weight, start = inputs(generator, rows, shape[1], x_kind), table[indices], 1000 * np.arange(shape[0])
    expected = gemv.reference(x, weight, start)
    for backwards in (False, True):
        assert np.array_equal(computed(x, indices, table, bits, backwards), expected)


def test_the_reference_is_the_sum_of_products() -> None:
    x, weight = np.array([[255, 1], [0, 2]], np.uint8), np.array([[-128, 3], [127, 1], [0, 5]], np.int8)
    assert gemv.reference(x, weight, np.array([10, 20, 30])).tolist() == [[-32627, 32406, 35], [16, 22, 40]]


@given(SHAPES, st.sampled_from(gemv.WIDTHS), st.integers(0, 2**32 - 1))
def test_arranging_keeps_every_bit_once(shape: tuple[int, int], bits: int, seed: int) -> None:
    indices = np.random.default_rng(seed).integers(0, 2**bits, shape).astype(np.uint8)
    arranged = gemv.arrange(indices, bits)
    assert np.array_equal(gemv.restore(arranged, bits, *shape), indices)
    padded_rows, padded_columns = len(arranged) * gemv.ROWS, arranged.shape[1] * gemv.COLUMNS
    assert arranged.nbytes * 8 == padded_rows * padded_columns * bits
    assert padded_rows - shape[0] < gemv.ROWS
    assert padded_columns - shape[1] < gemv.COLUMNS
