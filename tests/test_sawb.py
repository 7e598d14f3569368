"""SAWB and its families: coefficients, clips against the best of a grid, and weights that are like none of them."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qstudy.quant.quantizers import UniformWeights
from qstudy.quant.quantizers.sawb import COEFFICIENTS, FAMILIES, FamilyWeights, SawbWeights
from qstudy.quant.quantizers.sawb_fit import DENSITIES, Moments, best_clip, fit

SEEDS = st.integers(0, 10_000)
pytestmark = pytest.mark.usefixtures("one_thread")  # small tensors


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", COEFFICIENTS)
def test_committed_coefficients_are_the_fits(bits: int) -> None:
    assert COEFFICIENTS[bits] == pytest.approx(fit(bits), abs=1e-5)


@pytest.mark.parametrize(("bits", "step"), [(2, 1.2240), (3, 0.6508), (4, 0.3534)])
def test_best_clips_of_a_gaussian_are_textbook(bits: int, step: float) -> None:
    """Optimal uniform quantizers of 3, 7 and 15 levels: Max 1960, table II."""
    assert best_clip(Moments(DENSITIES["gaussian"]), bits) / (2 ** (bits - 1) - 1) == pytest.approx(step, abs=1e-4)


@pytest.mark.parametrize("bits", COEFFICIENTS)
def test_best_clips_of_a_uniform_density_are_exact(bits: int) -> None:
    """n levels cut [-1, 1] into n equal cells, with a level in the middle of each."""
    levels = 2**bits - 1
    moments = Moments(DENSITIES["uniform"])
    clip = best_clip(moments, bits)
    assert clip == pytest.approx(1 - 1 / levels, abs=1e-4)
    assert moments.error(clip, bits) == pytest.approx(1 / (3 * levels**2), rel=1e-3)


@pytest.mark.parametrize("name", DENSITIES)
def test_the_error_of_the_tables_is_that_of_samples(name: str) -> None:
    moments = Moments(DENSITIES[name])
    p = DENSITIES[name][0]
    x = torch.linspace(0, moments.end, 400_001, dtype=torch.float64)
    mass = torch.from_numpy(p(x.numpy()))
    clip = best_clip(moments, 4)
    quantized = (x / (clip / 7)).round().clamp(-7, 7) * (clip / 7)
    expected = float(((quantized - x).square() * mass).sum() / mass.sum())
    assert moments.error(clip, 4) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("bits", COEFFICIENTS)
def test_sawb_clips_by_its_formula(bits: int, granularity: str) -> None:
    weight = values(4, 500).double() ** 3
    rows = weight if granularity == "channel" else weight.view(1, -1)
    c1, c2 = COEFFICIENTS[bits]
    expected = c1 * rows.square().mean(1).sqrt() - c2 * rows.abs().mean(1)
    expected = expected.clamp(min=rows.abs().mean(1), max=rows.abs().amax(1))
    quantizer = SawbWeights(bits, granularity)
    torch.testing.assert_close(quantizer.clip(weight.float())[:, 0], expected.float(), rtol=1e-4, atol=0)
    integers, scale, _ = quantizer.quantize(weight.float())
    torch.testing.assert_close(scale[:, 0], expected.float() / (2 ** (bits - 1) - 1), rtol=1e-4, atol=0)
    assert torch.equal(quantizer(weight.float()), integers * scale)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_sawb_is_close_to_the_best_clip(bits: int) -> None:
    """For Gaussian weights the error is within a few percent of the least possible, and below that of the maximum."""
    weight = values(1, 20_000)
    least = Moments(DENSITIES["gaussian"])
    quantized = SawbWeights(bits, "tensor")(weight)
    error = float((quantized - weight).square().mean())
    assert error < 1.1 * least.error(best_clip(least, bits), bits)
    assert error < 0.8 * float((UniformWeights(weight, bits, "tensor", "max")(weight) - weight).square().mean())


@cache
def drawn(family: str, count: int = 100_000) -> Tensor:
    """Weights (1, count) spread as a family's density; the same each time, to be read."""
    density, end = DENSITIES[family]
    x = np.linspace(0, end, 200_001)
    mass = np.cumsum(density(x))
    quantiles = np.interp((np.arange(count // 2) + 0.5) / (count // 2), mass / mass[-1], x)
    return torch.from_numpy(np.concatenate([-quantiles[::-1], quantiles])).float()[None]


@cache
def least_error(family: str, bits: int) -> float:
    """The least mean squared error of a family's weights over a grid of 400 clips, to the largest magnitude."""
    weight = drawn(family)
    high = 2 ** (bits - 1) - 1
    scales = torch.linspace(0.0025, 1, 400) * weight.abs().max() / high
    return min(float(((weight / s).round().clamp(-high, high) * s - weight).square().mean()) for s in scales)


@pytest.mark.parametrize("bits", COEFFICIENTS)
@pytest.mark.parametrize("family", DENSITIES)
def test_a_familys_clip_is_the_best_of_all(family: str, bits: int) -> None:
    """Within 1 % of the least error of a grid of clips."""
    weight = drawn(family)
    quantizer = FamilyWeights(bits, "tensor")
    quantizer.calibrate(weight)
    assert float((quantizer(weight) - weight).square().mean()) <= 1.01 * least_error(family, bits)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("family", DENSITIES)
def test_one_line_for_all_families_costs_what_is_said(family: str, bits: int) -> None:
    """Up to 3 bits half a percent; at 4 it cannot serve all: a von Mises density pays 17 %, a uniform one 7 %."""
    weight = drawn(family)
    cost = float((SawbWeights(bits, "tensor")(weight) - weight).square().mean()) / least_error(family, bits) - 1
    at_four_bits = {"gaussian": 0.02, "uniform": 0.08, "laplace": 0.01, "logistic": 0.03, "triangular": 0.04}
    assert cost < (0.005 if bits < 4 else at_four_bits.get(family, 0.18))


@pytest.mark.parametrize("bits", COEFFICIENTS)
def test_committed_families_are_the_densities(bits: int) -> None:
    tables = [Moments(density) for density in DENSITIES.values()]
    assert FAMILIES[bits] == pytest.approx([best_clip(m, bits) / m.mean_magnitude for m in tables], abs=1e-5)


@settings(max_examples=30)
@given(st.sampled_from(list(FAMILIES)), SEEDS, st.floats(-6, 6), st.sampled_from(["channel", "tensor"]))
def test_a_family_follows_the_weights(bits: int, seed: int, power: float, granularity: str) -> None:
    """What calibration chose is a multiple of E[|w|]: it grows with the weights, and lives in checkpoints."""
    weight = values(3, 40, seed=seed) ** 3
    quantizer, again = FamilyWeights(bits, granularity), FamilyWeights(bits, granularity)
    quantizer.calibrate(weight)
    again.load_state_dict(quantizer.state_dict())
    assert float(quantizer.factor) in FAMILIES[bits]
    torch.testing.assert_close(again.clip(weight * 10**power), quantizer.clip(weight) * 10**power, rtol=1e-4, atol=0)


@pytest.mark.parametrize("bits", COEFFICIENTS)
def test_sawb_reaches_every_level(bits: int) -> None:
    weight = values(1, 100_000)
    high = 2 ** (bits - 1) - 1
    assert SawbWeights(bits, "tensor").quantize(weight).integers.unique().tolist() == list(range(-high, high + 1))


@settings(max_examples=60)
@given(st.sampled_from(list(COEFFICIENTS)), SEEDS, st.floats(-20, 20), st.sampled_from(["channel", "tensor"]))
def test_sawb_of_any_size(bits: int, seed: int, power: float, granularity: str) -> None:
    """The clip scales with the weights and never leaves E|w| to max|w|."""
    weight = values(3, 17, seed=seed) ** 3
    quantizer = SawbWeights(bits, granularity)
    clip = quantizer.clip(weight * 10**power)
    torch.testing.assert_close(clip, quantizer.clip(weight) * 10**power, rtol=1e-4, atol=0)
    codes = quantizer.quantize(weight * 10**power)
    assert torch.isfinite(codes.scale).all()
    assert (codes.scale > 0).all()


@pytest.mark.parametrize(
    "weight", [torch.zeros(3, 4), torch.full((3, 4), -2.0), torch.eye(40)[:3]], ids=["0", "-2", "1"]
)
def test_sawb_of_weights_like_no_distribution(weight: Tensor) -> None:
    """All zero, all of one magnitude, one among zeros: nothing is lost."""
    assert torch.equal(SawbWeights(4, "channel")(weight), weight)


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_sawb_does_not_depend_on_the_order_of_sums(granularity: str) -> None:
    """Training and packing may run on different numbers of threads."""
    weight = values(64, 4096)
    shuffled = weight[:, torch.randperm(4096, generator=torch.Generator().manual_seed(0))]
    quantizer = SawbWeights(4, granularity)
    assert torch.equal(quantizer.clip(weight), quantizer.clip(shuffled))


def test_sawb_gradient_passes_whole() -> None:
    weight, upstream = values(3, 50).requires_grad_(), values(3, 50, seed=1)
    quantizer = SawbWeights(3, "tensor")
    assert (quantizer.quantize(weight).integers.abs() == 3).sum() > 4
    quantizer(weight).backward(upstream)
    assert torch.equal(weight.grad, upstream)
