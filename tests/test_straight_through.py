"""Rounding forward, no rounding backward."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qstudy.quant.straight_through import fake_quantize, learned_step_size

BOUNDS = st.sampled_from([(-1, 1), (-2, 1), (-7, 7), (-8, 7), (-127, 127), (-128, 127)])
SEEDS = st.integers(0, 10_000)


def values(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(BOUNDS, SEEDS, st.sampled_from([0.05, 0.3, 1.0, 4.0]), st.integers(-3, 3))
def test_values_are_the_nearest_levels(bounds: tuple[int, int], seed: int, scale: float, zero: int) -> None:
    x = values(4, 9, seed=seed)
    levels = (torch.arange(bounds[0], bounds[1] + 1) - zero) * scale
    snapped = fake_quantize(x, torch.tensor(scale), torch.tensor(float(zero)), *bounds)
    assert torch.isin(snapped, levels.float()).all()
    nearest = (x[..., None] - levels).abs().amin(-1)
    torch.testing.assert_close((x - snapped).abs(), nearest, atol=1e-5, rtol=1e-5)


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
    """Esser et al. 2020, equations 2 and 3 with the gradient scale of section 2.2, one value at a time."""
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
    snapped = learned_step_size(x, scale, low, high)
    snapped.sum().backward()
    torch.testing.assert_close(
        scale.grad, lsq_by_its_formula(x, scale.detach(), low, high).float(), atol=1e-4, rtol=1e-4
    )
    assert torch.equal(snapped, fake_quantize(x, scale, torch.zeros(()), low, high))


def test_learned_step_size_of_a_whole_tensor() -> None:
    x, scale = values(3, 4, 5, seed=0).requires_grad_(), torch.tensor(0.2, requires_grad=True)
    upstream = values(3, 4, 5, seed=1)
    learned_step_size(x, scale, -3, 3).backward(upstream)
    ratio = (x / scale).detach()
    slope = torch.where(ratio.abs() <= 3, ratio.round() - ratio, ratio.sign() * 3)
    torch.testing.assert_close(scale.grad, (slope * upstream).sum() / (60 * 3) ** 0.5)
    assert torch.equal(x.grad, upstream * (ratio.abs() <= 3))
