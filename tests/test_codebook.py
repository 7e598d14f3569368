"""Codebook quantizers and MRACos: levels, nearest centroids, straight-through, and the penalty's shape."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qstudy.quant.quantizers.codebook import CODEBOOK_WIDTHS, CodebookWeights, distinct_integers
from qstudy.quant.quantizers.codebook_kernels import (
    look_up,
    mracos_sums,
    nearest_entries,
    portable_look_up,
    portable_mracos_sums,
    regions,
)
from qstudy.quant.quantizers.lloyd_max import lloyd_max
from qstudy.quant.quantizers.mracos import mracos, steepness

TABLE, SCALE = torch.tensor([-80, -20, 10, 40, 120], dtype=torch.int8), torch.tensor([[1 / 40]])
LEVELS = TABLE * SCALE.flatten()  # -2, -0.5, 0.25, 1, 3


def matrix(seed: int = 0, rows: int = 64, columns: int = 48) -> Tensor:
    """Heavy tails, as trained weights have."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * torch.rand(rows, columns, generator=generator) * 0.3


def calibrated(weight: Tensor, bits: int) -> CodebookWeights:
    quantizer = CodebookWeights(weight, bits)
    quantizer.calibrate(weight)
    return quantizer


# Levels


@pytest.mark.parametrize("bits", CODEBOOK_WIDTHS)
def test_every_level_is_used(bits: int) -> None:
    weight = matrix()
    quantizer = calibrated(weight, bits)
    codes = quantizer.quantize(weight)
    assert codes.table is not None
    assert codes.table.dtype == codes.integers.dtype == torch.int8
    assert (codes.table.int().diff() > 0).all()
    assert codes.integers.unique().tolist() == list(range(2**bits))
    assert codes.scale.shape == (1, 1)
    assert float(codes.scale) == pytest.approx(float(weight.abs().max()) / 127)
    assert torch.equal(codes.table[codes.integers.int()] * codes.scale, quantizer(weight))


@pytest.mark.parametrize("bits", CODEBOOK_WIDTHS)
def test_rounding_centroids_to_int8_costs_little(bits: int) -> None:
    """Beside the centroids themselves, rounding them to int8 adds no more than int8's own error."""
    weight = matrix()
    centroids = lloyd_max(weight, 2**bits)
    ideal = centroids[torch.bucketize(weight.double(), (centroids[1:] + centroids[:-1]) / 2)]
    best, real = ((weight - quantized).square().mean() for quantized in (ideal, calibrated(weight, bits)(weight)))
    assert best < real < best + float(weight.abs().max() / 127) ** 2 / 12 * 1.1


@given(st.integers(0, 9), st.sampled_from(CODEBOOK_WIDTHS))
def test_the_nearest_level_and_no_other(seed: int, bits: int) -> None:
    weight = matrix(seed, 9, 7)
    quantizer = calibrated(weight, bits)
    wide = 1.5 * matrix(seed + 1, 9, 7)  # weights that left the calibrated range, too
    error = (wide - quantizer(wide)).abs()
    torch.testing.assert_close(error, (wide[..., None] - quantizer.levels).abs().amin(-1), rtol=1e-5, atol=1e-7)
    assert torch.equal(quantizer(quantizer(wide)), quantizer(wide))


@pytest.mark.parametrize(
    "weight",
    [torch.zeros(4, 4), torch.ones(4, 4), torch.tensor([[0.0, 1e-30]]), torch.tensor([[-3.0, 1.0, 1.0, 0.5]])],
    ids=["zeros", "ones", "tiny", "few values"],
)
@pytest.mark.parametrize("bits", CODEBOOK_WIDTHS)
def test_matrices_with_fewer_values_than_levels(weight: Tensor, bits: int) -> None:
    quantizer = calibrated(weight, bits)
    assert (quantizer.table.int().diff() > 0).all()
    assert quantizer.table.int().abs().max() <= 127
    step = float(quantizer.scale)
    torch.testing.assert_close(quantizer(weight), weight, atol=step / 2 if weight.numel() > 4 else step, rtol=0)


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
    quantizer = calibrated(weight, 3)
    wide = (3 * weight).requires_grad_()
    upstream = matrix(1)
    (quantizer(wide) * upstream).sum().backward()
    assert wide.grad is not None
    assert torch.equal(wide.grad, upstream)


def test_a_checkpoint_brings_the_table_back() -> None:
    weight = matrix()
    quantizer, other = calibrated(weight, 4), CodebookWeights(weight, 4)
    assert not torch.equal(other(weight), quantizer(weight))
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other(weight), quantizer(weight))


# MRACos


def penalty(weight: Tensor) -> Tensor:
    """With the centroids of LEVELS."""
    return mracos(weight.reshape(1, -1), TABLE, SCALE)


def test_zero_at_centroids_one_half_way() -> None:
    half_way = (LEVELS[1:] + LEVELS[:-1]) / 2
    for level in LEVELS:
        assert float(penalty(level)) == pytest.approx(0, abs=2e-5)
    for between in half_way:
        assert float(penalty(between)) == pytest.approx(1)
    assert float(penalty(half_way)) == pytest.approx(len(half_way))


@given(st.integers(0, 3), st.floats(0, 1, exclude_max=True, width=32))
def test_the_papers_formula_between_neighbours(region: int, place: float) -> None:
    low, high = float(LEVELS[region]), float(LEVELS[region + 1])
    w = torch.tensor(low + place * (high - low))
    expected = abs(math.cos(math.pi * ((float(w) - low) / (high - low) - 0.5)))
    assert float(penalty(w)) == pytest.approx(expected, abs=1e-4)


def test_outside_a_steady_pull_back() -> None:
    outside = torch.tensor([-3.5, -2.5, 4.0, 90.0], requires_grad=True)
    penalty(outside).backward()
    expected = math.pi * torch.tensor([-1 / 1.5, -1 / 1.5, 1 / 2, 1 / 2])
    torch.testing.assert_close(outside.grad, expected)
    assert float(penalty(torch.tensor(9.0))) == pytest.approx(math.pi * 6 / 2)


def test_at_a_centroid_nothing_moves() -> None:
    weight = matrix()
    quantizer = calibrated(weight, 6)
    compressed = quantizer(weight).requires_grad_()
    mracos(compressed, quantizer.table, quantizer.scale).backward()
    assert compressed.grad is not None
    assert not compressed.grad.any()


def test_its_gradient_is_that_of_finite_differences() -> None:
    weight = torch.linspace(-4, 5, 181)[1:-1:2] + 0.013  # none at a centroid
    weight.requires_grad_()
    penalty(weight).backward()
    step = 1e-3
    numeric = torch.tensor([float(penalty(w + step) - penalty(w - step)) / (2 * step) for w in weight.detach()])
    torch.testing.assert_close(weight.grad, numeric, atol=5e-3, rtol=1e-3)


def test_following_it_gathers_the_weights() -> None:
    weight = matrix()
    quantizer = calibrated(weight, 3)
    moving = weight.clone().requires_grad_()
    before = float(mracos(weight, quantizer.table, quantizer.scale))
    for _ in range(120):
        mracos(moving, quantizer.table, quantizer.scale).backward()
        with torch.no_grad():
            moving -= 3e-5 * moving.grad  # type: ignore[operator]
        moving.grad = None
    assert float(mracos(moving.detach(), quantizer.table, quantizer.scale)) < 0.2 * before
    assert (quantizer(weight) == quantizer(moving.detach())).float().mean() > 0.99  # each to its nearest centroid


@pytest.mark.parametrize("bits", CODEBOOK_WIDTHS)
def test_steepness_is_the_slope_of_weights_that_lie_anywhere(bits: int) -> None:
    quantizer = calibrated(matrix(), bits)
    shares = (torch.arange(1000) + 0.5) / 1000
    anywhere = (quantizer.levels[:-1] + shares[:, None] * quantizer.levels.diff()).requires_grad_()
    mracos(anywhere, quantizer.table, quantizer.scale).backward()
    assert anywhere.grad is not None
    assert float(anywhere.grad.square().mean().sqrt()) == pytest.approx(float(steepness(quantizer.levels)), rel=1e-3)


def test_zeros_have_a_scale_like_others() -> None:
    """A tiny one would make their penalty so steep that the others' vanishes beside it."""
    quantizer = calibrated(torch.zeros(4, 6), 3)
    assert 1e-3 < float(quantizer.scale) < 1
    assert not quantizer(torch.zeros(4, 6)).any()


# The two ways to compute


def test_no_number_is_the_lowest_level() -> None:
    weight, indices = torch.tensor([[0.0, math.nan, math.inf, -math.inf]]), nearest_entries(TABLE)
    expected = [[2, 0, 4, 0]]
    assert look_up(weight, SCALE.flatten()[0], indices).tolist() == expected
    assert portable_look_up(weight, 1 / SCALE.flatten()[0], indices).tolist() == expected
    assert mracos_sums(weight, SCALE.flatten()[0], TABLE)[0].isnan()


@pytest.mark.parametrize("bits", CODEBOOK_WIDTHS)
def test_torch_computes_the_same_as_the_loops(bits: int) -> None:
    weight = matrix()
    quantizer = calibrated(weight, bits)
    wide, scale = 1.3 * matrix(1), quantizer.scale.flatten()[0]
    indices = nearest_entries(quantizer.table)
    assert torch.equal(portable_look_up(wide, 1 / scale, indices), look_up(wide, scale, indices))
    in_loops = mracos_sums(wide, scale, quantizer.table)
    in_torch = portable_mracos_sums(wide, 1 / scale, *regions(quantizer.table))
    for one, other in zip(in_loops, in_torch, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(one.abs().max()))
