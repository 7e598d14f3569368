"""The kernels against the plain NumPy references beside them: equal to the bit."""

import os
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from qstudy.quant import products
from qstudy.quant.integer.accumulator import QParams, recorded_accumulators, rescale
from qstudy.quant.kernels import SWITCH, cell, codes, gemm, ir, recurrence
from qstudy.quant.recurrence import compiled as recurrence_kernels

sizes = st.integers(1, 70)
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DTYPES = [torch.float32, torch.bfloat16] if ir.BF16 else [torch.float32]  # torch itself rounds bfloat16 sums


def launcher(multiply: Callable[..., None]) -> Callable[..., None]:
    """A numba function that Python can call around an intrinsic."""

    @njit(nogil=True, error_model="numpy")  # kept on disk it would never be found: an intrinsic's name is new each time
    def call(
        x: int, xs: int, w: int, depth: int, start: int, ss: int, out: int, os: int, blocks: int, rows: int
    ) -> None:
        multiply(x, xs, w, depth, start, ss, out, os, blocks, rows)

    return call


@pytest.fixture(scope="module")
def multiply_s8() -> Callable[..., None]:
    return launcher(gemm.multiply_s8)


@pytest.fixture(scope="module")
def multiply_bf16() -> Callable[..., None]:
    return launcher(gemm.multiply_bf16)


@pytest.fixture(scope="module")
def vector_s8(multiply_s8: Callable[..., None]) -> Callable[..., None]:
    """The product without tiles, where there are any; else it is the same one, not to be compiled again."""
    return without("AMX") if ir.AMX else multiply_s8


@pytest.fixture(scope="module")
def plain_s8(vector_s8: Callable[..., None]) -> Callable[..., None]:
    """The product of a processor without the instruction for it."""
    return without("AMX", "VNNI") if ir.VNNI else vector_s8


def without(*offers: str) -> Callable[..., None]:
    """The integer product, compiled as if the processor did not offer that."""
    with pytest.MonkeyPatch.context() as patch:
        for offer in offers:
            patch.setattr(ir, offer, False)
        call = launcher(gemm.product("s8"))
        multiply(call, torch.ones(1, 4, dtype=torch.uint8), torch.ones(1, 4, dtype=torch.int8))
    return call


def multiply(call: Callable[..., None], x: Tensor, weight: Tensor, start: Tensor | None = None) -> NDArray[Any]:
    """x (M, K) times weight (N, K), from start (N,) on, by a launched product: (M, N)."""
    packed = gemm.pack(weight)
    blocks, depth, _ = packed.shape
    width = blocks * gemm.BLOCK
    x = torch.nn.functional.pad(x, (0, depth * gemm.PER_WORD[weight.dtype] - x.shape[1])).contiguous()
    out = torch.full((len(x), width), 77, dtype=torch.int32 if weight.dtype == torch.int8 else torch.float32)
    first = torch.zeros(width, dtype=out.dtype)
    if start is not None:
        first[: len(start)] = start
    stride = x.stride(0) * x.element_size()
    call(x.data_ptr(), stride, packed.data_ptr(), depth, first.data_ptr(), 0, out.data_ptr(), 4 * width, blocks, len(x))
    return out[:, : len(weight)].numpy()


def extreme(generator: np.random.Generator, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
    """Integers of which half are the type's ends or zero."""
    ends = np.iinfo(dtype)
    values = generator.integers(ends.min, ends.max, shape, endpoint=True)
    special = generator.choice([ends.min, ends.max, 0], shape)
    return np.where(generator.random(shape) < 0.5, special, values).astype(dtype)


@few
@given(sizes, sizes, sizes, seeds)
def test_integer_product_is_exact(
    multiply_s8: Callable[..., None],
    vector_s8: Callable[..., None],
    plain_s8: Callable[..., None],
    rows: int,
    depth: int,
    columns: int,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    x = extreme(generator, (rows, depth), np.uint8)
    weight = extreme(generator, (columns, depth), np.int8)
    start = generator.integers(-(2**24), 2**24, columns, dtype=np.int32)
    expected = gemm.reference(x.astype(np.int64), weight.astype(np.int64)) + start
    for call in (multiply_s8, vector_s8, plain_s8):
        found = multiply(call, *map(torch.from_numpy, (x, weight, start)))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(not ir.BF16, reason="this processor has no bfloat16")
@few
@given(sizes, sizes, sizes, seeds)
def test_bfloat16_product_of_whole_numbers_is_exact(
    multiply_bf16: Callable[..., None], rows: int, depth: int, columns: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    x, weight = (generator.integers(-99, 99, (n, depth)) for n in (rows, columns))
    start = torch.from_numpy(generator.integers(-99, 99, columns)).float()
    narrow = (torch.from_numpy(each).bfloat16() for each in (x, weight))
    np.testing.assert_array_equal(multiply(multiply_bf16, *narrow, start), gemm.reference(x, weight) + start.numpy())


@pytest.fixture(params=[False, True], ids=["by kernels", "by the library"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either way of the float products, whatever this processor takes."""
    monkeypatch.setattr(products, "library_is_faster", lambda: request.param)


@few
@given(sizes, sizes, sizes, seeds)
def test_float_products_of_whole_numbers_are_exact(
    library: None, rows: int, depth: int, columns: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    x, weight = (generator.integers(-99, 99, (n, depth)) for n in (rows, columns))
    expected = gemm.reference(x, weight)
    x, weight = (torch.from_numpy(each).float() for each in (x, weight))
    bias = torch.arange(columns).float()
    np.testing.assert_array_equal(products.affine(x, weight, bias).numpy(), expected + bias.numpy())
    inside = torch.from_numpy(generator.random((rows, columns)) < 0.7)
    for dtype in DTYPES:
        found = products.input_gradient(x.to(dtype), weight.t(), inside).numpy()
        whole = torch.from_numpy(expected).to(dtype).float().numpy()  # torch's own sums are handed over in bfloat16
        np.testing.assert_array_equal(found, np.where(inside, whole, 0))
        assert np.array_equal(products.input_gradient(x.to(dtype), weight.t(), None).numpy(), whole)


@few
@given(
    st.sampled_from([1, 2, 7, 255, 256, 257, 600]), sizes, sizes, seeds, st.sampled_from([torch.int8, torch.float32])
)
def test_gradients_of_weights_and_bias_are_exact_for_whole_numbers(
    library: None, frames: int, rows: int, columns: int, seed: int, dtype: torch.dtype
) -> None:
    generator = np.random.default_rng(seed)
    gradients, x = generator.integers(-9, 9, (frames, rows)), generator.integers(-60, 60, (frames, columns))
    expected = gradients.T @ (x - 3) * 0.5
    values = torch.from_numpy(x).to(dtype), torch.tensor(0.5), torch.tensor(3.0)
    for kind in DTYPES:
        given = torch.from_numpy(gradients).to(kind)
        found = products.weight_gradient(given, *values)
        whole = torch.from_numpy(2 * expected).to(kind).float() / 2
        np.testing.assert_array_equal(found.numpy(), whole.numpy())
        np.testing.assert_array_equal(products.bias_gradient(given).numpy(), gradients.sum(0))


@few
@given(sizes, st.sampled_from([0, -128, 17]), st.integers(2, 8), seeds)
def test_codes_to_the_bit(count: int, zero: int, bits: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    x = torch.from_numpy(floats(generator, count, 3, 2) * 40)
    x[0] = (torch.arange(6.0).view(3, 2) - 2.5) * 0.25  # ties
    x[-1, 0, 0] = torch.nan
    qparams = QParams.read(torch.tensor(0.25), torch.tensor(float(zero)), bits)
    expected = codes.reference(x.numpy(), np.float32(0.25), np.float32(zero), *qparams.bounds())
    for view in (x, x.transpose(0, 1), x.permute(2, 1, 0), x[:, 1:]):
        index = torch.arange(x.numel()).view(x.shape)
        index = index.as_strided(view.shape, view.stride(), view.storage_offset())
        with patch.dict(os.environ, {SWITCH: "1"}):
            by_torch = qparams.quantize(view)
        assert torch.equal(qparams.quantize(view), by_torch)
        for found, all_of_them in zip(qparams.quantize_and_inside(view), expected, strict=True):
            np.testing.assert_array_equal(found.numpy(), all_of_them.reshape(-1)[index.numpy()])


@few
@given(sizes, sizes, st.booleans(), st.booleans(), seeds)
def test_accumulators_to_floats_to_the_bit(rows: int, columns: int, per_row: bool, biased: bool, seed: int) -> None:
    generator = np.random.default_rng(seed)
    sums = generator.integers(-(2**31), 2**31, (rows, columns), dtype=np.int32)
    scale, bias = floats(generator, columns if per_row else 1), floats(generator, columns if biased else 0)
    given_bias = torch.from_numpy(bias) if biased else None
    found = rescale(torch.from_numpy(sums), torch.tensor(0.3), torch.from_numpy(scale), given_bias)
    expected = codes.rescale_reference(sums, np.float32(0.3) * scale, bias)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected)


def floats(generator: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Numbers of many magnitudes, zeros among them."""
    values = generator.standard_normal(shape) * 10.0 ** generator.integers(-6, 3, shape)
    return np.where(generator.random(shape) < 0.05, 0, values).astype(np.float32)


@few
@given(sizes, seeds)
def test_cell_forward_to_the_bit(hidden: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    sums, before = floats(generator, 4 * hidden), floats(generator, hidden)
    gates, after, output = np.empty_like(sums), np.empty_like(before), np.empty_like(before)
    cell.activate(sums, gates)
    cell.advance(gates, before, after, output)
    for found, expected in zip((gates, after, output), cell.frame_reference(sums, before), strict=True):
        np.testing.assert_array_equal(found, expected)


@few
@given(sizes, seeds)
def test_cell_backward_to_the_bit(hidden: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    gates, _, _ = cell.frame_reference(floats(generator, 4 * hidden), floats(generator, hidden))
    before, after, above, dh, dc = floats(generator, 5, hidden)
    expected = cell.gradient_reference(gates, before, after, above, dh, dc)
    found = np.empty_like(gates)
    cell.retreat(gates, before, after, above, dh, dc, np.empty((2, hidden), np.float32), found)
    np.testing.assert_array_equal(found, expected[0])
    np.testing.assert_array_equal(dc, expected[1])


def test_tanh_is_close_odd_and_never_beyond_one() -> None:
    x = np.concatenate([np.linspace(-12, 12, 200_001), np.logspace(-30, 30, 2000)]).astype(np.float32)
    y = cell.tanh_reference(x)
    assert np.abs(y - np.tanh(x.astype(np.float64))).max() < 3.3e-7
    assert np.abs(y).max() == 1
    np.testing.assert_array_equal(cell.tanh_reference(-x), -y)
    assert cell.tanh(np.float32(np.inf)) == 1
    assert np.isnan(cell.tanh(np.float32(np.nan)))


def test_bfloat16_bits_are_torchs() -> None:
    generator = np.random.default_rng(0)
    bits = generator.integers(-(2**31), 2**31, 5000).astype(np.int32)
    bits[:4] = np.array([np.inf, -np.inf, 0, -0.0], np.float32).view(np.int32)
    bits[4:1000] = bits[4:1000] & -65536 | 32768  # half-way between two bfloat16
    out = np.empty(bits.size, np.int16)
    cell.store_bits(bits, out)
    expected = torch.from_numpy(bits).view(torch.float32).bfloat16()
    number = ~expected.isnan().numpy()
    assert not number.all()
    np.testing.assert_array_equal(out[number], expected.view(torch.int16).numpy()[number])
    assert torch.from_numpy(out).view(torch.bfloat16).isnan().numpy()[~number].all()


class Problem:
    """A recurrence with random integers, some of them extreme."""

    def __init__(self, frames: int, batch: int, hidden: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.inputs = generator.integers(-(2**20), 2**20, (frames, batch, 4 * hidden), dtype=np.int32)
        self.weight = extreme(generator, (4 * hidden, hidden), np.int8)
        self.scales = tuple(
            (generator.random(4 * hidden) * size).astype(np.float32) for size in (2.0**-18, 2.0**-12 / hidden)
        )
        self.bias = generator.standard_normal(4 * hidden).astype(np.float32)
        self.h = np.tanh(generator.standard_normal((batch, hidden))).astype(np.float32)
        self.c = generator.standard_normal((batch, hidden)).astype(np.float32)
        self.qparams = QParams.read(torch.tensor(1 / 127), torch.zeros(()), 8)

    def run(self, rows: slice = slice(None)) -> list[NDArray[Any]]:
        """Gates, cells, codes, outputs and hidden accumulators, by the kernel, of some rows of the batch."""
        inputs, h, c = (torch.from_numpy(each.copy()) for each in (self.inputs[:, rows], self.h[rows], self.c[rows]))
        weight, bias = torch.from_numpy(self.weight), torch.from_numpy(self.bias)
        scales = (torch.from_numpy(self.scales[0]), torch.from_numpy(self.scales[1]))
        with recorded_accumulators() as record:
            steps = recurrence_kernels.integer_trace(
                inputs, self.qparams.quantize(h), c, weight, scales, bias, self.qparams
            )
        return [each.numpy() for each in (*steps, *record)]

    def expected(self) -> tuple[NDArray[Any], ...]:
        """The same by NumPy."""
        step = np.float32(self.qparams.scale)
        codes = np.rint(self.h / step).astype(np.int8)
        scales = (self.scales[0], self.scales[1])
        constants = (self.weight, scales, self.bias, step, np.float32(127))
        return recurrence.integer_reference(self.inputs, *constants, (codes, self.c))


@few
@given(st.integers(1, 12), st.integers(1, 19), st.integers(1, 40), seeds)
def test_recurrence_in_integers_to_the_bit(frames: int, batch: int, hidden: int, seed: int) -> None:
    problem = Problem(frames, batch, hidden, seed)
    for found, expected in zip(problem.run(), problem.expected(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("many", [1, 2, 3])
def test_batch_and_threads_change_no_bit(many: int, threads: Callable[[int], None]) -> None:
    problem = Problem(20, 7, 33, 0)
    whole = problem.run()
    threads(many)
    for rows in (slice(0, 1), slice(2, 7)):
        for part, all_rows in zip(problem.run(rows), whole, strict=True):
            np.testing.assert_array_equal(part, all_rows[:, rows])


@pytest.mark.skipif(not ir.BF16, reason="this processor has no bfloat16")
@pytest.mark.parametrize("hidden", [8, 41, 64])
def test_backward_in_bfloat16_is_that_in_float32(hidden: int) -> None:
    torch.manual_seed(hidden)
    gates, cells = torch.rand(9, 19, 4 * hidden), torch.randn(10, 19, hidden)
    weight = torch.randn(4 * hidden, hidden) / hidden
    upstream = (torch.randn(9, 19, hidden), torch.randn(19, hidden), torch.randn(19, hidden))
    exact, narrow = (
        recurrence_kernels.trace_gradients(gates, cells, weight, upstream, dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert narrow[0].dtype == torch.bfloat16
    for one, two in zip(exact, narrow, strict=True):
        torch.testing.assert_close(two.float(), one, rtol=0.02, atol=0.02)
