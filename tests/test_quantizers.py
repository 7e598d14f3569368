"""Quantizers: which levels there are, where they end, and what moves them."""

import builtins
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qstudy.errors import Diverged, UserError
from qstudy.quant.quantizers import FixedActivations, UniformActivations, UniformWeights, bounds
from qstudy.quant.quantizers.base import ActivationQuantizer
from qstudy.quant.quantizers.blocks import from_blocks, spread, to_blocks
from qstudy.quant.quantizers.magnitude import RATE, Magnitude
from qstudy.quant.quantizers.pact import PactActivations

WIDTHS = [2, 3, 4, 5, 6, 7, 8, 16]
RANGES = ["max", "percentile", "mse", "learned"]
ACTIVATIONS = ["max", "ema", "percentile", "mse", "kl", "learned"]
SEEDS = st.integers(0, 10_000)


def matrix(rows: int = 6, columns: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def make(
    weight: torch.Tensor,
    bits: int,
    granularity: str = "channel",
    range: str = "max",
    narrow: bool = True,
    group: int = 64,
) -> UniformWeights:
    result = UniformWeights(weight, bits, granularity, range, narrow, group)
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
    quantizer = UniformWeights(weight.clamp(-1, 1), bits, "channel", "learned", narrow)
    quantizer.learned.set(1 / high)
    assert len(quantizer(weight).unique()) == levels
    integers = quantizer.quantize(weight).integers
    assert (int(integers.min()), int(integers.max())) == (low, high)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(WIDTHS),
    st.booleans(),
    st.sampled_from(RANGES),
    st.sampled_from(["tensor", "channel", "group"]),
    st.floats(1e-4, 1e4),
    SEEDS,
)
def test_weights_use_every_level(bits: int, narrow: bool, range: str, shared: str, size: float, seed: int) -> None:
    """2**bits - 1 levels whatever the range and its sharing, 2**bits in the full range; 4 bits never behave as 3."""
    low, high = bounds(bits, narrow)
    ramp = torch.linspace(low / high, 1, 6 * 2**bits)[torch.randperm(6 * 2**bits)]
    weight = size * torch.stack([ramp, ramp])
    quantizer = UniformWeights(weight, bits, shared, range, narrow, 6 * 2**bits)
    quantizer.calibrate(weight)
    if range == "learned":  # as the full range's last level lies beyond the largest weight, a trained scale can be
        quantizer.learned.set(size / high)
    elif not narrow:
        quantizer.ratio.data.fill_(float(weight.max() / weight.abs().max()))
    integers = quantizer.quantize(weight).integers[0]
    assert integers.unique().tolist() == list(builtins.range(low, high + 1))
    assert len(quantizer(weight)[0].unique()) == 2**bits - narrow


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(WIDTHS), st.booleans(), st.sampled_from(ACTIVATIONS), st.floats(1e-3, 1e3))
def test_activations_use_every_level(bits: int, symmetric: bool, range: str, size: float) -> None:
    quantizer = UniformActivations(bits, symmetric, range, percentile=100)
    x = size * torch.linspace(-1, 1, 12 * 2**bits + 1)
    quantizer.observe(x)
    quantizer.compute_qparams()
    assert len(quantizer(4 * x).unique()) == 2**bits - symmetric
    assert len(quantizer(4 * x).unique()) == quantizer.high - quantizer.low + 1


@pytest.mark.parametrize(("granularity", "shape"), [("channel", (6, 1)), ("tensor", (1, 1)), ("group", (6, 3))])
@pytest.mark.parametrize("range", RANGES)
@pytest.mark.parametrize("bits", WIDTHS)
def test_codes_stand_for_the_forward_values(bits: int, range: str, granularity: str, shape: tuple[int, int]) -> None:
    weight = matrix()
    quantizer = make(weight, bits, granularity, range, group=16)
    integers, scale, _ = quantizer.quantize(weight)
    assert integers.dtype == (torch.int8 if bits <= 8 else torch.int16)
    assert scale.shape == shape
    assert torch.equal(integers * spread(scale, quantizer.per_scale, weight.shape), quantizer(weight))
    assert int(integers.abs().max()) <= 2 ** (bits - 1) - 1


@pytest.mark.parametrize("range", RANGES)
def test_rows_of_zeros_stay_zero(range: str) -> None:
    weight = matrix()
    weight[2] = 0
    for granularity, tensor in (("channel", weight), ("tensor", torch.zeros(3, 4))):
        quantizer = make(tensor, 4, granularity, range)
        quantized = quantizer(tensor)
        assert torch.isfinite(quantized).all()
        assert not quantized[2].any()
        assert (quantizer.quantize(tensor).scale > 0).all()


@pytest.mark.parametrize("range", ["max", "mse", "learned"])
@pytest.mark.parametrize("rows", [[1], [0, 1, 2]], ids=["one", "all"])
def test_rows_of_zeros_can_learn(rows: list[int], range: str) -> None:
    """As those of new labels do: their gradients pass, at zero and when they have grown."""
    start = matrix(3)
    start[rows] = 0
    quantizer = make(start, 4, range=range)
    weight, target = start.clone().requires_grad_(), matrix(3, seed=1)
    adam = torch.optim.Adam([weight, *quantizer.parameters()], 0.02)
    for _ in builtins.range(300):
        adam.zero_grad()
        (quantizer(weight) - target).square().sum().backward()
        adam.step()
    errors = (quantizer(weight) - target).detach().square().mean(1)
    assert (errors[rows] < 0.05).all()


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1e3, 1e12])
@pytest.mark.parametrize("range", RANGES)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_extreme_scales(bits: int, range: str, factor: float) -> None:
    """Whatever the size of the weights, none moves by more than half a step, unless it is clipped to the last level."""
    weight = matrix() * factor
    integers, scale, _ = make(weight, bits, range=range).quantize(weight)
    error = (integers * scale - weight).abs()
    assert torch.isfinite(error).all()
    assert ((error <= 0.501 * scale) | (integers.abs() == 2 ** (bits - 1) - 1)).all()
    assert (integers.abs().amax(1) == 2 ** (bits - 1) - 1).all()


def test_one_weight_of_another_size_does_not_hurt_other_rows() -> None:
    weight = matrix()
    loud = weight.clone()
    loud[0, 0] = 1e6
    assert torch.equal(make(weight, 8)(weight)[1:], make(loud, 8)(loud)[1:])


@settings(max_examples=30)
@given(st.sampled_from(WIDTHS), st.sampled_from(["channel", "tensor"]), SEEDS, st.floats(1.0, 4.0))
def test_mse_is_never_worse_than_max(bits: int, granularity: str, seed: int, power: float) -> None:
    weight = matrix(seed=seed)
    weight = weight.sign() * weight.abs() ** power  # heavier and heavier tails

    def error(range: str) -> torch.Tensor:
        difference = (make(weight, bits, granularity, range)(weight) - weight).double().square()
        return difference.sum(1) if granularity == "channel" else difference.sum()

    assert (error("mse") <= error("max") * (1 + 1e-5) + 1e-12).all()


@pytest.mark.parametrize("range", ["mse", "percentile"])
def test_outliers_are_clipped(range: str) -> None:
    weight = matrix(1, 20_000)
    weight[0, 0] = 30.0
    assert float(make(weight, 3, range=range).scale(weight)) < 0.5 * float(make(weight, 3).scale(weight))


def test_a_percentile_of_any_number_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = matrix(30, 50)
    sorted_whole = make(weight, 4, "tensor", "percentile").scale(weight)
    monkeypatch.setattr("qstudy.quant.quantizers.weights.MOST_SORTED", 100)
    torch.testing.assert_close(make(weight, 4, "tensor", "percentile").scale(weight), sorted_whole)
    large = torch.ones(1, 2**24 + 1)
    assert float(make(large, 4, "tensor", "percentile").scale(large)) == pytest.approx(1 / 7)


# Groups


@settings(max_examples=40)
@given(st.integers(1, 5), st.integers(1, 50), st.integers(0, 20), SEEDS)
def test_blocks_and_back(rows: int, columns: int, per_scale: int, seed: int) -> None:
    weight = matrix(rows, columns, seed)
    blocks = to_blocks(weight, per_scale)
    assert torch.equal(from_blocks(blocks, weight.shape), weight)
    assert len(blocks) == (1 if per_scale == 0 else rows * -(-columns // per_scale))


@pytest.mark.parametrize("range", RANGES)
def test_each_group_has_the_scale_that_it_would_have_alone(range: str) -> None:
    weight = matrix(4, 40) * torch.linspace(0.1, 5, 40)
    grouped = make(weight, 3, "group", range, group=16)(weight)
    alone = [make(part.contiguous(), 3, "channel", range)(part.contiguous()) for part in weight.split(16, 1)]
    difference = (grouped - torch.cat(alone, 1)).detach().abs()
    assert float(difference.max()) == 0  # the zeros that fill up the last group count for nothing


def test_groups_are_closer_than_rows() -> None:
    weight = matrix(4, 128) * torch.linspace(0.1, 5, 128)
    errors = [float((make(weight, 3, *how)(weight) - weight).square().mean()) for how in (("group",), ("channel",))]
    assert errors[0] < 0.8 * errors[1]


def test_group_gradients_pass_as_those_of_rows() -> None:
    weight = matrix(2, 40).requires_grad_()
    quantizer = make(weight.detach(), 3, "group", "learned", group=16)
    upstream = matrix(2, 40, 7)
    quantizer(weight).backward(upstream)
    inside = (weight.detach() / spread(quantizer.learned().detach().view(2, 3), 16, weight.shape)).abs() < 3
    assert torch.equal(weight.grad, upstream * inside)
    assert quantizer.learned.growth.grad.shape == (6, 1)
    assert (quantizer.learned.growth.grad != 0).all()


def test_unknown_granularity() -> None:
    with pytest.raises(UserError, match="channel, group"):
        UniformWeights(matrix(), 4, "row", "max")


def test_gradient_of_weights_and_learned_scale() -> None:
    weight = matrix().requires_grad_()
    quantizer = make(weight.detach(), 3, range="learned")
    quantizer(weight).square().sum().backward()
    clipped = (weight.detach() / quantizer.learned().detach()).abs() >= 3
    assert clipped.any()
    assert not weight.grad[clipped].any()
    assert torch.equal(weight.grad[~clipped], 2 * quantizer(weight).detach()[~clipped])
    assert (quantizer.learned.growth.grad != 0).all()


# Activations


@given(st.sampled_from(WIDTHS), st.floats(-5, 5), st.floats(0.01, 5), SEEDS)
def test_asymmetric_quantizers_keep_zero_exact(bits: int, middle: float, spread: float, seed: int) -> None:
    x = matrix(seed=seed) * spread + middle
    quantizer = UniformActivations(bits, symmetric=False)
    quantizer.observe(x)
    assert not quantizer(torch.zeros(4)).any()
    assert bounds(bits, narrow=False)[0] <= float(quantizer.zero_point) <= bounds(bits, narrow=False)[1]
    step = float(quantizer.scale)
    assert float((quantizer(x) - x).abs().max()) <= 1.01 * step + 1e-6  # the rounded zero point may cost one step


@given(st.sampled_from(WIDTHS), SEEDS)
def test_symmetric_quantizers_cover_the_extremes(bits: int, seed: int) -> None:
    x = matrix(seed=seed)
    quantizer = UniformActivations(bits)
    quantizer.observe(x)
    largest = x.abs().amax()
    assert float(quantizer.scale) == pytest.approx(float(largest) / (2 ** (bits - 1) - 1), rel=1e-6)
    assert float((quantizer(x) - x).abs().max()) <= 0.51 * float(quantizer.scale)  # float32 rounds at 16 bits
    assert torch.equal(quantizer(-x), -quantizer(x))


def test_observers_only_watch_while_training_and_asked() -> None:
    quantizer = UniformActivations(8)
    x = matrix()
    for observer_enabled, training in ((False, True), (True, False), (False, False)):
        quantizer.observer_enabled = observer_enabled
        quantizer.train(training)
        quantizer(x)
        assert not quantizer.seen
        assert float(quantizer.scale) == 1
    quantizer.observer_enabled = True
    quantizer.train()
    quantizer(x)
    assert quantizer.extremes.tolist() == [float(x.min()), float(x.max())]


def test_threads_that_do_not_observe_do_not_disturb_each_other() -> None:
    quantizer = UniformActivations(8).train()
    quantizer.observer_enabled = True
    quantizer(matrix())
    before = quantizer.extremes.clone()
    meet = Barrier(4)

    def late(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if inputs[0].numel() > 1:
            meet.wait(timeout=60)  # all are inside; the next ones come while some of these leave

    quantizer.register_forward_pre_hook(late)
    with ThreadPoolExecutor(4) as threads:
        for turn in range(20):
            list(threads.map(quantizer.without_observing, [torch.full((turn + 2,), 1000.0)] * 4))
            list(threads.map(quantizer.without_observing, [torch.full((1,), 1000.0)] * 8))
    assert quantizer.observer_enabled
    assert torch.equal(quantizer.extremes, before)


def test_extremes_move_slowly() -> None:
    quantizer = UniformActivations(8, momentum=0.9)
    quantizer.observe(torch.tensor([-1.0, 2.0]))
    quantizer.observe(torch.tensor([-3.0, 4.0]))
    torch.testing.assert_close(quantizer.extremes, torch.tensor([-1.2, 2.2]))
    torch.testing.assert_close(quantizer.scale, torch.tensor(2.2 / 127))


def test_disabled_quantizers_watch_without_changing_anything() -> None:
    quantizer = UniformActivations(2)
    quantizer.fake_quant_enabled, quantizer.observer_enabled = False, True
    assert torch.equal(quantizer(matrix()), matrix())
    assert quantizer.seen
    quantizer.fake_quant_enabled = True
    assert len(quantizer(matrix()).unique()) == 3


def test_running_extremes_only_grow() -> None:
    quantizer = UniformActivations(8, range="max")
    for x in ([-1.0, 2.0], [-3.0, 1.0], [0.0, 0.5]):
        quantizer.observe(torch.tensor(x))
    assert quantizer.extremes.tolist() == [-3.0, 2.0]
    torch.testing.assert_close(quantizer.scale, torch.tensor(3 / 127))


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "quantizer", [*(UniformActivations(8, range=ends) for ends in ("max", "ema", "mse")), PactActivations(4)], ids=str
)
def test_a_range_takes_up_no_poison(quantizer: ActivationQuantizer, poison: float) -> None:
    """It would never lose a NaN again."""
    quantizer.observer_enabled, quantizer.fake_quant_enabled = True, False
    quantizer(torch.linspace(-1, 1, 100))
    with pytest.raises(Diverged, match="values that are not finite"):
        quantizer(torch.tensor([0.5] * 9999 + [poison]))
    quantizer.compute_qparams()
    assert 0 < quantizer.scale < 1


@pytest.mark.parametrize("symmetric", [True, False])
def test_learned_activation_scale_has_a_gradient(symmetric: bool) -> None:
    quantizer = UniformActivations(4, symmetric, "learned")
    x = matrix() + 1
    quantizer.observe(x)
    quantizer.compute_qparams()
    quantizer(x).square().sum().backward()
    assert {name for name, _ in quantizer.named_parameters()} == {"learned.growth"} | (
        set() if symmetric else {"zero_point"}
    )
    assert all(float(p.grad) != 0 for p in quantizer.parameters())


def small_weights() -> UniformWeights:
    """Levels of 0.0002, next to which a learning rate of 0.001 is large."""
    return make(matrix() / 100, 8, range="learned")


def wide_clip() -> PactActivations:
    """A clip of 30, next to which a learning rate of 0.001 is nothing."""
    quantizer = PactActivations(4)
    quantizer.clip.set(30.0)
    return quantizer


def wide_inputs() -> UniformActivations:
    quantizer = UniformActivations(4, range="learned")
    quantizer.observe(30 * matrix())
    quantizer.compute_qparams()
    return quantizer


@pytest.mark.parametrize("make_quantizer", [small_weights, wide_clip, wide_inputs])
@pytest.mark.parametrize("pull", [-1.0, 1.0])
def test_what_is_learned_moves_by_shares_of_itself(make_quantizer: Callable[[], Any], pull: float) -> None:
    """Adam's steps are as large as the learning rate, whatever the gradient: a bare scale of 0.0002 would move by many
    times its size, a bare clip of 30 by a thousandth of it."""
    quantizer = make_quantizer()
    (magnitude,) = (module for module in quantizer.modules() if isinstance(module, Magnitude))
    optimizer = torch.optim.AdamW(quantizer.parameters(), lr=1e-3)
    x = 100 * matrix()
    before = magnitude().detach().clone()
    for _ in range(20):
        optimizer.zero_grad()
        (pull * quantizer(x) * x.sign()).sum().backward()
        optimizer.step()
    share = magnitude().detach() / before
    torch.testing.assert_close(share, torch.full_like(share, math.exp(-pull * 20 * RATE * 1e-3)), rtol=1e-2, atol=0)


def test_weight_decay_draws_a_magnitude_back_to_its_start() -> None:
    scale = Magnitude()
    scale.set(1e-4)
    scale.growth.data.fill_(0.1)
    optimizer = torch.optim.SGD(scale.parameters(), lr=1.0, weight_decay=1.0)
    (0 * scale()).backward()
    optimizer.step()
    assert float(scale().detach()) == pytest.approx(1e-4)


def test_a_learned_zero_point_follows_its_values() -> None:
    """Training alone moves a quantizer from where it fitted to where the values went."""
    quantizer = UniformActivations(3, symmetric=False, range="learned")
    quantizer.observe(matrix())
    quantizer.compute_qparams()
    x = matrix().abs() * 2
    before = float((quantizer(x) - x).square().mean().detach())
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        (quantizer(x) - x).square().sum().backward()
        optimizer.step()
    after = float((quantizer(x) - x).square().mean())
    assert after < 0.3 * before
    step, zero_point = quantizer.qparams()
    assert float(zero_point) == round(float(zero_point)) != 0
    codes = (x / step + zero_point).round().clamp(quantizer.low, quantizer.high)
    assert torch.equal(quantizer(x).detach(), (codes - zero_point) * step)


@pytest.mark.parametrize("bits", WIDTHS)
def test_fixed_quantizers_end_at_their_bound(bits: int) -> None:
    quantizer = FixedActivations(bits)
    quantizer.observer_enabled = True
    quantizer(100 * matrix())
    assert not quantizer.seen
    levels = quantizer(torch.linspace(-2, 2, 2 ** (bits + 4) + 1)).unique()
    assert len(levels) == 2**bits - 1
    torch.testing.assert_close(levels[[0, -1]], torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize(
    "quantizer", [UniformActivations(8), UniformActivations(8, symmetric=False), FixedActivations(4)]
)
def test_constants_are_scale_and_zero_point(quantizer: UniformActivations) -> None:
    quantizer.observe(matrix() + 3)
    assert quantizer.qparams().tolist() == [float(quantizer.scale), float(quantizer.zero_point)]


@pytest.mark.parametrize("range", ["mse", "kl", "percentile", "learned"])
def test_silence_in_calibration_does_not_clip_what_comes_later(range: str) -> None:
    """A layer that starts at zero hands on nothing but zeros, until it is trained."""
    quantizer = UniformActivations(8, range=range)
    quantizer.observe(torch.zeros(3, 4))
    quantizer.compute_qparams()
    assert quantizer(torch.tensor([0.5])).item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("range", ["max", "percentile", "mse", "learned"])
def test_a_row_of_zeros_may_grow(range: Any) -> None:
    """Nothing is known of its range yet, and so nothing is clipped."""
    weight = torch.cat([torch.zeros(1, 50), torch.linspace(-1, 1, 50)[None]])
    quantizer = UniformWeights(weight, 8, "channel", range, percentile=90.0)
    quantizer.calibrate(weight)
    grown = weight + torch.linspace(-0.004, 0.004, 50)
    assert quantizer(grown)[0].abs().amax() > 0.003
