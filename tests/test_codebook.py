"""Codebook grids and MRACos: levels, nearest centroids, straight-through, and the penalty's shape."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qstudy.quant.grids.codebook import CODEBOOK_WIDTHS, CodebookWeights, distinct_integers
from qstudy.quant.grids.lloyd_max import lloyd_max
from qstudy.quant.grids.mracos import mracos

LEVELS = torch.tensor([-2.0, -0.5, 0.25, 1.0, 3.0])


def matrix(seed: int = 0, rows: int = 64, columns: int = 48) -> Tensor:
    """Heavy tails, as trained weights have."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * torch.rand(rows, columns, generator=generator) * 0.3


def calibrated(weight: Tensor, bits: int) -> CodebookWeights:
    grid = CodebookWeights(weight, bits)
    grid.calibrate(weight)
    return grid


# Levels


@pytest.mark.parametrize("bits", CODEBOOK_WIDTHS)
def test_every_level_is_used(bits: int) -> None:
    weight = matrix()
    grid = calibrated(weight, bits)
    codes = grid.codes(weight)
    assert codes.table is not None
    assert codes.table.dtype == codes.integers.dtype == torch.int8
    assert (codes.table.int().diff() > 0).all()
    assert codes.integers.unique().tolist() == list(range(2**bits))
    assert codes.scale.shape == (1, 1)
    assert float(codes.scale) == pytest.approx(float(weight.abs().max()) / 127)
    assert torch.equal(codes.table[codes.integers.int()] * codes.scale, grid(weight))


@pytest.mark.parametrize("bits", CODEBOOK_WIDTHS)
def test_snapping_to_int8_costs_little(bits: int) -> None:
    """Beside the centroids themselves, rounding them to int8 adds no more than int8's own error."""
    weight = matrix()
    centroids = lloyd_max(weight, 2**bits)
    ideal = centroids[torch.bucketize(weight.double(), (centroids[1:] + centroids[:-1]) / 2)]
    best, real = ((weight - snapped).square().mean() for snapped in (ideal, calibrated(weight, bits)(weight)))
    assert best < real < best + float(weight.abs().max() / 127) ** 2 / 12 * 1.1


@given(st.integers(0, 9), st.sampled_from(CODEBOOK_WIDTHS))
def test_the_nearest_level_and_no_other(seed: int, bits: int) -> None:
    weight = matrix(seed, 9, 7)
    grid = calibrated(weight, bits)
    wide = 1.5 * matrix(seed + 1, 9, 7)  # weights that left the calibrated range, too
    error = (wide - grid(wide)).abs()
    assert torch.equal(error, (wide[..., None] - grid.levels).abs().amin(-1))
    assert torch.equal(grid(grid(wide)), grid(wide))


@pytest.mark.parametrize(
    "weight",
    [torch.zeros(4, 4), torch.ones(4, 4), torch.tensor([[0.0, 1e-30]]), torch.tensor([[-3.0, 1.0, 1.0, 0.5]])],
    ids=["zeros", "ones", "tiny", "few values"],
)
@pytest.mark.parametrize("bits", CODEBOOK_WIDTHS)
def test_matrices_with_fewer_values_than_levels(weight: Tensor, bits: int) -> None:
    grid = calibrated(weight, bits)
    assert (grid.table.int().diff() > 0).all()
    assert grid.table.int().abs().max() <= 127
    step = float(grid.scale)
    torch.testing.assert_close(grid(weight), weight, atol=step / 2 if weight.numel() > 4 else step, rtol=0)


@given(st.lists(st.floats(-200, 200), min_size=1, max_size=64))
def test_distinct_integers(wanted: list[float]) -> None:
    ascending = np.sort(wanted)
    found = distinct_integers(ascending, 127).astype(int)
    assert (np.diff(found) > 0).all()
    assert np.abs(found).max() <= 127
    rounded = np.rint(ascending)
    if (np.diff(rounded) > 0).all() and np.abs(rounded).max() <= 127:
        assert np.abs(found - ascending).max() <= 1


def test_crowded_centroids_make_room_on_both_sides() -> None:
    assert distinct_integers(np.zeros(5), 127).tolist() == [-2, -1, 0, 1, 2]
    assert distinct_integers(np.array([126.8, 127.0]), 127).tolist() == [126, 127]


def test_gradients_pass_straight_through_everywhere() -> None:
    weight = matrix()
    grid = calibrated(weight, 3)
    wide = (3 * weight).requires_grad_()
    upstream = matrix(1)
    (grid(wide) * upstream).sum().backward()
    assert wide.grad is not None
    assert torch.equal(wide.grad, upstream)


def test_a_checkpoint_brings_the_table_back() -> None:
    weight = matrix()
    grid, other = calibrated(weight, 4), CodebookWeights(weight, 4)
    assert not torch.equal(other(weight), grid(weight))
    other.load_state_dict(grid.state_dict())
    assert torch.equal(other(weight), grid(weight))


# MRACos


def test_zero_at_centroids_one_half_way() -> None:
    half_way = (LEVELS[1:] + LEVELS[:-1]) / 2
    for level in LEVELS:
        assert float(mracos(level, LEVELS)) == pytest.approx(0, abs=1e-6)
    for between in half_way:
        assert float(mracos(between, LEVELS)) == pytest.approx(1)
    assert float(mracos(half_way, LEVELS)) == pytest.approx(len(half_way))


@given(st.integers(0, 3), st.floats(0, 1, exclude_max=True, width=32))
def test_the_papers_formula_between_neighbours(region: int, place: float) -> None:
    low, high = float(LEVELS[region]), float(LEVELS[region + 1])
    w = torch.tensor(low + place * (high - low))
    expected = abs(math.cos(math.pi * ((float(w) - low) / (high - low) - 0.5)))
    assert float(mracos(w, LEVELS)) == pytest.approx(expected, abs=1e-5)


def test_outside_a_steady_pull_back() -> None:
    outside = torch.tensor([-3.5, -2.5, 4.0, 9.0], requires_grad=True)
    mracos(outside, LEVELS).backward()
    expected = math.pi * torch.tensor([-1 / 1.5, -1 / 1.5, 1 / 2, 1 / 2])
    torch.testing.assert_close(outside.grad, expected)
    assert float(mracos(torch.tensor(9.0), LEVELS)) == pytest.approx(math.pi * 6 / 2)


def test_at_a_centroid_nothing_moves() -> None:
    weight = LEVELS.clone().requires_grad_()
    mracos(weight, LEVELS).backward()
    assert weight.grad is not None
    assert not weight.grad.any()


def test_its_gradient_is_that_of_finite_differences() -> None:
    weight = torch.linspace(-4, 5, 181)[1:-1:2] + 0.013  # none at a centroid
    weight.requires_grad_()
    mracos(weight, LEVELS).backward()
    step = 1e-3
    numeric = torch.tensor(
        [float(mracos(w + step, LEVELS) - mracos(w - step, LEVELS)) / (2 * step) for w in weight.detach()]
    )
    torch.testing.assert_close(weight.grad, numeric, atol=5e-3, rtol=1e-3)


def test_following_it_gathers_the_weights() -> None:
    weight = matrix()
    levels = calibrated(weight, 3).levels
    moving = weight.clone().requires_grad_()
    before = float(mracos(weight, levels))
    for _ in range(400):
        mracos(moving, levels).backward()
        with torch.no_grad():
            moving -= 1e-5 * moving.grad  # type: ignore[operator]
        moving.grad = None
    assert float(mracos(moving.detach(), levels)) < 0.2 * before
    snapped = [levels[torch.bucketize(w, (levels[1:] + levels[:-1]) / 2)] for w in (weight, moving.detach())]
    assert (snapped[0] == snapped[1]).float().mean() > 0.99  # each to its nearest centroid
