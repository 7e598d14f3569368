"""Histograms of activations, and the ranges that are chosen from them."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from qstudy.errors import UserError
from qstudy.quant.quantizers import UniformActivations, bounds
from qstudy.quant.quantizers.calibration import divergence, mse_ends
from qstudy.quant.quantizers.histogram import HALF, Histogram

METHODS = ["percentile", "mse", "kl"]


def gaussian(count: int = 20_000, seed: int = 0) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def with_outliers(factor: float = 20.0) -> Tensor:
    x = gaussian()
    x[:2] = torch.tensor([-factor, factor])
    return x


def quantizer(x: Tensor, bits: int, range: str, symmetric: bool = True, batches: int = 4) -> UniformActivations:
    result = UniformActivations(bits, symmetric, range, percentile=99.9)
    for batch in x.chunk(batches):
        result.observe(batch)
    result.compute_qparams()
    return result


def error(x: Tensor, bits: int, range: str, symmetric: bool = True) -> float:
    return float((quantizer(x, bits, range, symmetric)(x) - x).square().mean())


# Histograms


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=5), st.integers(0, 999))
def test_a_histogram_over_batches_is_that_of_all_values(sizes: list[float], seed: int) -> None:
    histogram = Histogram()
    batches = [size * gaussian(500, seed + i) for i, size in enumerate(sizes)]
    for batch in batches:
        histogram.add(batch)
    everything = torch.cat(batches)
    assert float(histogram.counts.sum()) == len(everything)
    assert float(everything.abs().amax()) <= histogram.reach * (1 + 1e-6)
    edges = np.linspace(-histogram.reach, histogram.reach, 2 * HALF + 1)
    expected = np.histogram(everything.double().numpy(), edges)[0]
    moved = np.abs(np.cumsum(expected) - np.cumsum(histogram.counts.numpy())).max()
    assert moved <= 3  # values on an edge


def test_histogram_of_zeros_and_of_nothing() -> None:
    histogram = Histogram()
    histogram.add(torch.zeros(0))
    histogram.add(torch.zeros(7))
    histogram.add(torch.full((3,), 5.0))
    assert float(histogram.counts.sum()) == 10
    assert float(histogram.counts[:HALF].sum()) == 0


def test_zeros_that_come_first_do_not_make_the_bins_wide() -> None:
    values, histograms = 1e-4 * gaussian(), [Histogram(), Histogram()]
    for histogram, batches in zip(histograms, ([values, torch.zeros(9)], [torch.zeros(9), values]), strict=True):
        for batch in batches:
            histogram.add(batch)
    assert histograms[0].reach == histograms[1].reach
    assert torch.equal(histograms[0].counts, histograms[1].counts)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_what_is_not_finite_is_named(bad: float) -> None:
    with pytest.raises(UserError, match="finite"):
        Histogram().add(torch.tensor([1.0, bad]))


# Ranges


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("method", METHODS)
def test_outliers_are_clipped(method: str, bits: int, symmetric: bool) -> None:
    """Two values in 20000 that are twenty deviations away must not stretch the quantizer of all others."""
    if bits < 8 or method != "mse":  # with 255 levels to spare, the mean squared error rather keeps an outlier
        extremes = quantizer(with_outliers(), bits, method, symmetric).extremes
        assert 0.5 < float(extremes[1]) < 8
        assert -8 < float(extremes[0]) < -0.5
    widest = quantizer(with_outliers(), bits, "max", symmetric)
    assert float(widest.extremes[1]) == 20
    assert float((widest(with_outliers()) - with_outliers()).abs().max()) <= 1.01 * float(widest.scale)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("method", METHODS)
def test_the_bulk_of_the_values_comes_closer(method: str, bits: int) -> None:
    x = with_outliers()
    bulk = x.abs() < 10

    def bulk_error(range: str) -> float:
        return float((quantizer(x, bits, range)(x) - x)[bulk].square().mean())

    assert bulk_error(method) < (0.8 if bits == 2 else 0.4) * bulk_error("max")


@settings(max_examples=12, deadline=None)
@given(st.sampled_from([2, 3, 4, 6, 8]), st.booleans(), st.floats(-3, 3), st.floats(1, 3), st.integers(0, 999))
@example(4, False, 1.75, 2.125, 34)  # one end after the other, from the extremes, ends in a valley
def test_mse_is_never_clearly_worse_than_any_other(
    bits: int, symmetric: bool, middle: float, power: float, seed: int
) -> None:
    x = gaussian(4000, seed)
    x = x.sign() * x.abs() ** power + middle
    best = error(x, bits, "mse", symmetric)
    assert all(best <= 1.06 * error(x, bits, range, symmetric) + 1e-9 for range in ("max", "percentile", "kl"))


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_mse_finds_the_best_clip_of_a_gaussian(bits: int) -> None:
    """A search over every end, on the values themselves."""
    x = gaussian()
    ends = torch.linspace(0.3, float(x.abs().amax()), 400)
    high = 2 ** (bits - 1) - 1
    errors = [float(((x * high / e).round().clamp(-high, high) * e / high - x).square().mean()) for e in ends]
    assert error(x, bits, "mse") <= 1.02 * min(errors)


def test_percentile_leaves_so_many_outside() -> None:
    x = gaussian()
    for symmetric in (True, False):
        low, high = quantizer(x, 8, "percentile", symmetric).extremes
        outside = float(((x < low) | (x > high)).float().mean())
        assert 0.0005 <= outside <= 0.001
    low, high = quantizer(x.abs(), 8, "percentile", symmetric=False).extremes
    assert float(low) == 0


@pytest.mark.parametrize("method", [*METHODS, "max"])
def test_one_sided_values_use_all_levels_of_an_asymmetric_quantizer(method: str) -> None:
    x = gaussian().abs()
    asymmetric = quantizer(x, 4, method, symmetric=False)
    assert float(asymmetric.zero_point) == bounds(4, narrow=False)[0]
    assert len(asymmetric(x).unique()) == 16
    assert error(x, 4, method, symmetric=False) < 0.5 * error(x, 4, method)


@pytest.mark.parametrize("method", METHODS)
def test_sixteen_bits_keep_nearly_everything(method: str) -> None:
    x = gaussian()
    assert error(x, 16, method) < 3e-4  # what the percentile clips
    assert error(x, 16, "mse") < 1e-7


@pytest.mark.parametrize("method", [*METHODS, "max", "learned"])
def test_a_layer_that_saw_zeros_alone(method: str) -> None:
    static_range = quantizer(torch.zeros(100), 8, method)
    assert torch.isfinite(static_range.scale)
    assert float(static_range.scale.detach()) == pytest.approx(1 / 127, rel=0.01)  # what comes later is not clipped
    assert not static_range(torch.zeros(5)).any()


@pytest.mark.parametrize("method", METHODS)
def test_nothing_seen_changes_nothing(method: str) -> None:
    untouched = UniformActivations(8, range=method)
    untouched.compute_qparams()
    assert float(untouched.scale) == 1


# The divergence


def kl_by_its_recipe(counts: np.ndarray, bins: int, levels: int) -> float:
    """Migacz 2017, slide "pseudocode", bin by bin."""
    reference = counts[:bins].astype(float).copy()
    reference[-1] += counts[bins:].sum()
    expanded = np.zeros(bins)
    for level in range(levels):
        members = [i for i in range(bins) if i * levels // bins == level]
        filled = [i for i in members if counts[i]]
        for i in filled:
            expanded[i] = sum(counts[j] for j in members) / len(filled)
    p, q = reference / reference.sum(), expanded / expanded.sum()
    return float(sum(p[i] * np.log(p[i] / max(q[i], 1e-10)) for i in range(bins) if p[i]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(9, 60), st.sampled_from([2, 4, 8]))
def test_divergence_follows_the_recipe(seed: int, bins: int, levels: int) -> None:
    counts = np.random.default_rng(seed).poisson(1.5, 60)
    counts[0] = 3
    expected = kl_by_its_recipe(counts, bins, levels)
    assert divergence(counts.astype(float), 0, bins, levels) == pytest.approx(expected, abs=1e-9)


def test_kl_of_a_gaussian_at_eight_bits_keeps_almost_all_of_it() -> None:
    end = float(quantizer(gaussian(), 8, "kl").extremes[1])
    assert 2.5 < end <= float(gaussian().abs().amax())


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("method", METHODS)
def test_spikes_at_zero_and_at_the_ends_do_not_shrink_the_range(method: str, bits: int, symmetric: bool) -> None:
    """What padding and a saturated tanh give."""
    padded = torch.cat([gaussian(), torch.zeros(20_000)])
    saturated = torch.tanh(4 * gaussian())
    for x, least in ((padded, 1.2), (saturated, 0.8)):
        extremes = quantizer(x, bits, method, symmetric).extremes
        assert float(extremes[0]) < -least
        assert float(extremes[1]) > least


def test_calibrated_ranges_stay_while_training() -> None:
    for method in METHODS:
        assert quantizer(gaussian(), 8, method).static_range
    assert not quantizer(gaussian(), 8, "max").static_range


def test_methods_take_the_histogram_alone() -> None:
    histogram = Histogram()
    histogram.add(gaussian())
    least, greatest = mse_ends(histogram, -7, 7, True)
    assert least == -greatest
