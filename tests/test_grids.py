"""Grids: which levels there are, where they end, and what moves them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qstudy.quant.grids import FixedActivations, UniformActivations, UniformWeights, bounds

WIDTHS = [2, 3, 4, 5, 6, 7, 8, 16]
RANGES = ["max", "mse", "learned"]
SEEDS = st.integers(0, 10_000)


def matrix(rows: int = 6, columns: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def grid(
    weight: torch.Tensor, bits: int, granularity: str = "channel", range: str = "max", narrow: bool = True
) -> UniformWeights:
    result = UniformWeights(weight, bits, granularity, range, narrow)
    result.calibrate(weight)
    return result


@pytest.mark.parametrize("narrow", [True, False], ids=["narrow", "full"])
@pytest.mark.parametrize("bits", WIDTHS)
def test_every_level_is_reached_and_no_other(bits: int, narrow: bool) -> None:
    levels = 2**bits - narrow
    low, high = bounds(bits, narrow)
    assert high - low + 1 == levels
    weight = torch.linspace(-1, 1, 8 * levels + 1)[None] * (1 if narrow else -low / high)
    weight[0, 0] = weight[0, 0].clamp_min(-1 - 1 / high)
    snapping = UniformWeights(weight.clamp(-1, 1), bits, "channel", "learned", narrow)
    snapping.learned.data.fill_(1 / high)
    assert len(snapping(weight).unique()) == levels
    integers = snapping.codes(weight).integers
    assert (int(integers.min()), int(integers.max())) == (low, high)


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("range", RANGES)
@pytest.mark.parametrize("bits", WIDTHS)
def test_codes_stand_for_the_forward_values(bits: int, range: str, granularity: str) -> None:
    weight = matrix()
    snapping = grid(weight, bits, granularity, range)
    integers, scale, _ = snapping.codes(weight)
    assert integers.dtype == (torch.int8 if bits <= 8 else torch.int16)
    assert scale.shape == ((6, 1) if granularity == "channel" else (1, 1))
    assert torch.equal(integers * scale, snapping(weight))
    assert int(integers.abs().max()) <= 2 ** (bits - 1) - 1


@pytest.mark.parametrize("range", RANGES)
def test_rows_of_zeros_stay_zero(range: str) -> None:
    weight = matrix()
    weight[2] = 0
    for granularity, tensor in (("channel", weight), ("tensor", torch.zeros(3, 4))):
        snapping = grid(tensor, 4, granularity, range)
        snapped = snapping(tensor)
        assert torch.isfinite(snapped).all()
        assert not snapped[2].any()
        assert (snapping.codes(tensor).scale > 0).all()


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1e3, 1e12])
@pytest.mark.parametrize("range", RANGES)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_extreme_scales(bits: int, range: str, factor: float) -> None:
    """Whatever the size of the weights, none moves by more than half a step, unless it is clipped to the last level."""
    weight = matrix() * factor
    integers, scale, _ = grid(weight, bits, range=range).codes(weight)
    error = (integers * scale - weight).abs()
    assert torch.isfinite(error).all()
    assert ((error <= 0.501 * scale) | (integers.abs() == 2 ** (bits - 1) - 1)).all()
    assert (integers.abs().amax(1) == 2 ** (bits - 1) - 1).all()


def test_one_weight_of_another_size_does_not_hurt_other_rows() -> None:
    weight = matrix()
    loud = weight.clone()
    loud[0, 0] = 1e6
    assert torch.equal(grid(weight, 8)(weight)[1:], grid(loud, 8)(loud)[1:])


@settings(max_examples=30)
@given(st.sampled_from(WIDTHS), st.sampled_from(["channel", "tensor"]), SEEDS, st.floats(1.0, 4.0))
def test_mse_is_never_worse_than_max(bits: int, granularity: str, seed: int, power: float) -> None:
    weight = matrix(seed=seed)
    weight = weight.sign() * weight.abs() ** power  # heavier and heavier tails

    def error(range: str) -> torch.Tensor:
        difference = (grid(weight, bits, granularity, range)(weight) - weight).double().square()
        return difference.sum(1) if granularity == "channel" else difference.sum()

    assert (error("mse") <= error("max") * (1 + 1e-5) + 1e-12).all()


def test_mse_clips_outliers() -> None:
    weight = matrix(1, 2000)
    weight[0, 0] = 30.0
    assert float(grid(weight, 3, range="mse").scale(weight)) < 0.5 * float(grid(weight, 3).scale(weight))


def test_gradient_of_weights_and_learned_scale() -> None:
    weight = matrix().requires_grad_()
    snapping = grid(weight.detach(), 3, range="learned")
    snapping(weight).square().sum().backward()
    clipped = (weight.detach() / snapping.learned.detach()).abs() > 3
    assert clipped.any()
    assert not weight.grad[clipped].any()
    assert torch.equal(weight.grad[~clipped], 2 * snapping(weight).detach()[~clipped])
    assert (snapping.learned.grad != 0).all()


# Activations


@given(st.sampled_from(WIDTHS), st.floats(-5, 5), st.floats(0.01, 5), SEEDS)
def test_asymmetric_grids_keep_zero_exact(bits: int, middle: float, spread: float, seed: int) -> None:
    x = matrix(seed=seed) * spread + middle
    snapping = UniformActivations(bits, symmetric=False)
    snapping.observe(x)
    assert not snapping(torch.zeros(4)).any()
    assert bounds(bits, narrow=False)[0] <= float(snapping.zero_point) <= bounds(bits, narrow=False)[1]
    step = float(snapping.scale)
    assert float((snapping(x) - x).abs().max()) <= 1.01 * step + 1e-6  # the rounded zero point may cost one step


@given(st.sampled_from(WIDTHS), SEEDS)
def test_symmetric_grids_cover_the_extremes(bits: int, seed: int) -> None:
    x = matrix(seed=seed)
    snapping = UniformActivations(bits)
    snapping.observe(x)
    largest = x.abs().amax()
    assert float(snapping.scale) == pytest.approx(float(largest) / (2 ** (bits - 1) - 1), rel=1e-6)
    assert float((snapping(x) - x).abs().max()) <= 0.51 * float(snapping.scale)  # float32 rounds at 16 bits
    assert torch.equal(snapping(-x), -snapping(x))


def test_observers_only_watch_while_training_and_asked() -> None:
    snapping = UniformActivations(8)
    x = matrix()
    for observing, training in ((False, True), (True, False), (False, False)):
        snapping.observing = observing
        snapping.train(training)
        snapping(x)
        assert not snapping.seen
        assert float(snapping.scale) == 1
    snapping.observing = True
    snapping.train()
    snapping(x)
    assert snapping.extremes.tolist() == [float(x.min()), float(x.max())]


def test_extremes_move_slowly() -> None:
    snapping = UniformActivations(8, momentum=0.9)
    snapping.observe(torch.tensor([-1.0, 2.0]))
    snapping.observe(torch.tensor([-3.0, 4.0]))
    torch.testing.assert_close(snapping.extremes, torch.tensor([-1.2, 2.2]))
    torch.testing.assert_close(snapping.scale, torch.tensor(2.2 / 127))


def test_disabled_grids_watch_without_changing_anything() -> None:
    snapping = UniformActivations(2)
    snapping.enabled, snapping.observing = False, True
    assert torch.equal(snapping(matrix()), matrix())
    assert snapping.seen
    snapping.enabled = True
    assert len(snapping(matrix()).unique()) == 3


def test_learned_activation_scale_has_a_gradient() -> None:
    snapping = UniformActivations(4, range="learned")
    snapping.observe(matrix())
    snapping(matrix()).square().sum().backward()
    assert isinstance(snapping.scale, torch.nn.Parameter)
    assert float(snapping.scale.grad) != 0


@pytest.mark.parametrize("bits", WIDTHS)
def test_fixed_grids_end_at_their_bound(bits: int) -> None:
    snapping = FixedActivations(bits)
    snapping.observing = True
    snapping(100 * matrix())
    assert not snapping.seen
    levels = snapping(torch.linspace(-2, 2, 2 ** (bits + 4) + 1)).unique()
    assert len(levels) == 2**bits - 1
    torch.testing.assert_close(levels[[0, -1]], torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize("grid", [UniformActivations(8), UniformActivations(8, symmetric=False), FixedActivations(4)])
def test_constants_are_scale_and_zero_point(grid: UniformActivations) -> None:
    grid.observe(matrix() + 3)
    assert grid.constants().tolist() == [float(grid.scale), float(grid.zero_point)]
