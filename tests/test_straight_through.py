"""Rounding forward, no rounding backward."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qstudy.quant import rounding
from qstudy.quant.straight_through import (
    fake_quantize,
    learned_offset,
    learned_step_size,
    straight_through,
    whole_zero_point,
)

BOUNDS = st.sampled_from([(-1, 1), (-2, 1), (-7, 7), (-8, 7), (-127, 127), (-128, 127)])
SEEDS = st.integers(0, 10_000)


def values(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(BOUNDS, SEEDS, st.sampled_from([0.05, 0.3, 1.0, 4.0]), st.integers(-3, 3))
def test_values_are_the_nearest_levels(bounds: tuple[int, int], seed: int, scale: float, zero: int) -> None:
    x = values(4, 9, seed=seed)
    levels = (torch.arange(bounds[0], bounds[1] + 1) - zero) * scale
    quantized = fake_quantize(x, torch.tensor(scale), torch.tensor(float(zero)), *bounds)
    assert torch.isin(quantized, levels.float()).all()
    nearest = (x[..., None] - levels).abs().amin(-1)
    torch.testing.assert_close((x - quantized).abs(), nearest, atol=1e-5, rtol=1e-5)


@given(BOUNDS, SEEDS)
def test_gradient_passes_inside_and_stops_where_clipped(bounds: tuple[int, int], seed: int) -> None:
    x = (3 * values(5, 8, seed=seed)).requires_grad_()
    upstream = values(5, 8, seed=seed + 1)
    scale = torch.full((5, 1), 1.5 / max(1, bounds[1]))
    fake_quantize(x, scale, torch.zeros(()), *bounds).backward(upstream)
    steps = torch.round(x.detach() / scale)
    inside = (steps >= bounds[0]) & (steps <= bounds[1])
    assert torch.equal(x.grad, upstream * inside)
    assert not inside.all()  # the test does clip


def lsq_by_its_formula(x: torch.Tensor, scale: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """Esser et al. 2020, equation 3 with the gradient scale of section 2.2, one value at a time."""
    total = torch.zeros(scale.shape, dtype=torch.float64)
    for row in range(x.shape[0]):
        for column in range(x.shape[1]):
            where = (row, 0) if scale.shape[0] > 1 else (0, 0)
            ratio = float(x[row, column] / scale[where])
            total[where] += low if ratio <= low else high if ratio >= high else round(ratio) - ratio
    per_scale = x.numel() / scale.numel()
    return total / (per_scale * high) ** 0.5


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-7, 7), (-8, 7), (-127, 127)])
def test_learned_step_size_gradient_is_lsqs(rows: int, low: int, high: int) -> None:
    x = values(6, 10, seed=high)
    scale = (torch.rand(rows, 1, generator=torch.Generator().manual_seed(1)) + 0.3) / high
    scale.requires_grad_()
    quantized = learned_step_size(x, scale, low, high)
    quantized.sum().backward()
    torch.testing.assert_close(
        scale.grad, lsq_by_its_formula(x, scale.detach(), low, high).float(), atol=1e-4, rtol=1e-4
    )
    assert torch.equal(quantized, fake_quantize(x, scale, torch.zeros(()), low, high))


def test_learned_step_size_of_a_whole_tensor() -> None:
    x, scale = values(3, 4, 5, seed=0).requires_grad_(), torch.tensor(0.2, requires_grad=True)
    upstream = values(3, 4, 5, seed=1)
    learned_step_size(x, scale, -3, 3).backward(upstream)
    ratio = (x / scale).detach()
    slope = torch.where(ratio.abs() <= 3, ratio.round() - ratio, ratio.sign() * 3)
    torch.testing.assert_close(scale.grad, (slope * upstream).sum() / (60 * 3) ** 0.5)
    assert torch.equal(x.grad, upstream * (ratio.abs() < 3))


def test_values_on_the_bounds() -> None:
    """LSQ clips from the bound on (equation 5: strictly inside); the plain estimator, from where rounding passes it."""
    x = torch.tensor([-3.6, -3.4, -3.0, -2.9, 0.5, 2.9, 3.0, 3.4, 3.6], requires_grad=True)
    scale = torch.ones((), requires_grad=True)
    learned_step_size(x, scale, -3, 3).sum().backward()
    assert x.grad.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]
    slopes = torch.tensor([-3, -3, -3, -3 + 2.9, 0 - 0.5, 3 - 2.9, 3, 3, 3])
    torch.testing.assert_close(scale.grad, slopes.sum() / (9 * 3) ** 0.5)
    x.grad = None
    fake_quantize(x, torch.ones(()), None, -3, 3).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 0]


def test_what_is_passed_whole() -> None:
    x, upstream = values(4, 5, seed=0).requires_grad_(), values(4, 5, seed=1)
    quantized = 7 * x.detach().round()
    result = straight_through(x, quantized)
    result.backward(upstream)
    assert torch.equal(result, quantized)
    assert torch.equal(x.grad, upstream)


# LSQ+


@given(st.sampled_from([(-2, 1), (-8, 7), (-128, 127)]), SEEDS, st.floats(-3, 3), st.floats(0.1, 1))
def test_learned_offset_gradients_are_lsq_plus(bounds: tuple[int, int], seed: int, zero: float, size: float) -> None:
    """Bhalgat et al. 2020, equations 5 and 6 with beta = -scale * zero point, and LSQ's factor for both."""
    low, high = bounds
    x = (2 * values(50, seed=seed)).requires_grad_()
    upstream = values(50, seed=seed + 1)
    scale = torch.tensor(size * 3 / high, requires_grad=True)
    zero_point = torch.tensor(zero, requires_grad=True)
    quantized = learned_offset(x, scale, zero_point, low, high)
    quantized.backward(upstream)
    step, whole = scale.detach(), whole_zero_point(zero_point)
    v = x.detach() / step + whole
    inside = (v > low) & (v < high)
    clipped = torch.where(v <= low, float(low), float(high))
    slope = torch.where(inside, v.round() - v, clipped - whole)
    factor = (50 * high) ** -0.5
    assert torch.equal(quantized, fake_quantize(x, step, whole, low, high))
    clear = ((v - low).abs() > 1e-4) & ((v - high).abs() > 1e-4)  # rounding decides on the bound itself
    assert torch.equal((x.grad == upstream)[clear], inside[clear])
    if clear.all() and ((v - v.floor() - 0.5).abs() > 1e-3).all():
        torch.testing.assert_close(scale.grad, (slope * upstream).sum() * factor, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(zero_point.grad, -step * upstream[~inside].sum() * factor, rtol=1e-3, atol=1e-5)


def test_a_whole_zero_point_is_never_zero() -> None:
    zeros = [whole_zero_point(torch.tensor(z)).item() for z in (-2.6, -0.6, -0.4, 0.0, 0.4, 0.6, 2.4)]
    assert zeros == [-3, -1, -1, -1, 1, 1, 2]


# One pass over memory, or torch


@settings(deadline=None)  # the first example compiles
@given(
    st.sampled_from([(1,), (7,), (3, 5), (2, 3, 4), (40, 33), (2, 1500)]),
    st.sampled_from([2, 3, 4, 8, 16]),
    st.sampled_from(["one", "rows"]),
    st.sampled_from([None, 0.0, -1.0, 3.0]),
    st.floats(1e-6, 1e3),
    SEEDS,
)
def test_loops_and_torch_agree_to_the_bit(
    shape: tuple[int, ...], bits: int, scales: str, zero: float | None, size: float, seed: int
) -> None:
    x, grad = size * values(*shape, seed=seed), values(*shape, seed=seed + 1)
    rows = scales == "rows" and len(shape) == 2
    scale = size * (torch.rand(shape[0], 1) + 0.1) / bits if rows else torch.tensor(size / bits)
    high = 2 ** (bits - 1) - 1
    zero_point = None if zero is None else torch.tensor(zero)
    quantized = rounding.nearest_levels(x, scale, zero_point, -high - 1, high)
    expected = rounding.nearest_levels_portable(x, scale, zero_point, -high - 1, high)
    assert torch.equal(quantized[0], expected[0])
    assert torch.equal(quantized[1], expected[1])
    assert torch.equal(rounding.mask(grad, quantized[1]), grad * expected[1])
    gradients = rounding.learned_gradient(x, scale, -high - 1, high, grad)
    portable = rounding.learned_gradient_portable(x, scale, -high - 1, high, grad)
    assert torch.equal(gradients[0], portable[0])
    torch.testing.assert_close(gradients[1], portable[1], rtol=1e-3, atol=1e-3 * high)  # sums in another order


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 1e-42, 0.0])
def test_strange_values(value: float) -> None:
    x = torch.full((3, 20), value)
    ours, torchs = (
        f(x, torch.ones(3, 1), None, -7, 7)[0] for f in (rounding.nearest_levels, rounding.nearest_levels_portable)
    )
    torch.testing.assert_close(ours, torchs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("scale", [torch.tensor(0.3), torch.rand(8, 1) + 0.1])
def test_values_that_do_not_lie_in_a_row(scale: torch.Tensor) -> None:
    """Transposed tensors take torch's way, forward or backward."""
    x, upstream = values(6, 8, seed=0).t().requires_grad_(), values(6, 8, seed=1).t()
    for function in (learned_step_size, lambda *a: fake_quantize(a[0], a[1], None, *a[2:])):
        x.grad = None
        function(x, scale, -2, 2).backward(upstream)
        across = x.grad
        plain = x.detach().contiguous().requires_grad_()
        function(plain, scale, -2, 2).backward(upstream.contiguous())
        assert torch.equal(across, plain.grad)
