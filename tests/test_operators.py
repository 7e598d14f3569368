"""Operators without matrices: twins of torch's while their slots are empty, exact in every arithmetic."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.bits import FLOAT
from qstudy.errors import UserError
from qstudy.hardware.accelerator import load_accelerator
from qstudy.hardware.simulator import simulate
from qstudy.hardware.size import size_bytes
from qstudy.hardware.workload import workload
from qstudy.quant.fixed_point.norm import fixed_point_layer_norm
from qstudy.quant.fixed_point.operators import FixedPoint
from qstudy.quant.fixed_point.softmax import fixed_point_probabilities, fixed_point_softmax
from qstudy.quant.integer.accumulator import QParams, recorded_accumulators
from qstudy.quant.integer.whole_numbers import integer_product
from qstudy.quant.layers import Linear, Rate, quantizable
from qstudy.quant.operators import LayerNorm, MatMul, Softmax
from qstudy.quant.packed.model import PackedModel, fill_packed, pack_model
from qstudy.quant.policies import build_policy
from qstudy.quant.state import layer_shapes

RATE = Rate(every_ms=40.0)
POLICIES: list[dict[str, Any]] = [
    {"name": name, "layers": {"*": {"weight": 4, "activation": 8}}}
    for name in ("fake_qat", "native_int", "s8bqat", "accelerator_aware", "int4_e2e", "ptq")
]
ASYMMETRIC = [{**policy, "symmetric": False} for policy in POLICIES if policy["name"] in ("fake_qat", "ptq")]
POLICIES += ASYMMETRIC


def policy_id(policy: dict[str, Any]) -> str:
    return f"{policy['name']}{'' if policy.get('symmetric', True) else ', asymmetric'}"


EXACT = ("native_int", "int4_e2e", "accelerator_aware")
SPECS = [FixedPoint(), FixedPoint(nonlinearity="linear"), FixedPoint(rounding="truncate")]


class Attention(nn.Module):
    """One head over all frames, with a normalization."""

    def __init__(self, size: int = 16, frames: int = 10) -> None:
        super().__init__()
        self.norm = LayerNorm(size, RATE)
        self.query, self.key = Linear(size, size, rate=RATE), Linear(size, size, rate=RATE)
        self.scores = MatMul(size, frames, rate=RATE)
        self.softmax = Softmax(frames, rate=RATE)
        self.mixture = MatMul(frames, size, unit=True, rate=RATE)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """x (B, T, D) to (B, T, D); keys that are hidden (T, T) get no weight."""
        key = self.key(x)
        scores = self.scores(self.query(self.norm(x)), key.transpose(1, 2))
        if hidden is not None:
            scores = scores.masked_fill(hidden, -torch.inf)
        out: Tensor = self.mixture(self.softmax(scores), key)
        return out


def trained(policy: dict[str, Any]) -> tuple[Attention, PackedModel]:
    """A calibrated model with random weights, and what is packed of it."""
    torch.manual_seed(0)
    model, built = Attention().train(), build_policy(policy)
    nn.init.normal_(model.norm.bias)
    shapes = layer_shapes(model)
    bit_map = built.bit_map(shapes)
    built.prepare(model)

    def passes() -> Iterator[None]:
        for _ in range(3):
            model(torch.randn(4, 10, 16))
            yield

    built.calibrate(model, passes())
    return model.eval(), pack_model(model, bit_map, shapes, {})


def test_empty_slots_are_torch() -> None:
    x, y = torch.randn(3, 5, 8), torch.randn(3, 8, 4)
    norm, twin = LayerNorm(8), nn.LayerNorm(8)
    nn.init.normal_(norm.weight)
    twin.load_state_dict(norm.state_dict())
    assert torch.equal(MatMul(8, 4)(x, y), x @ y)
    assert torch.equal(Softmax(8)(x), torch.softmax(x, -1))
    assert torch.equal(norm(x), twin(x))


@pytest.mark.parametrize("policy", POLICIES, ids=policy_id)
@torch.no_grad()
def test_the_packed_model_computes_the_same(policy: dict[str, Any]) -> None:
    model, packed = trained(policy)
    loaded = Attention()
    fill_packed(loaded, packed)
    x, hidden = torch.randn(2, 10, 16), torch.ones(10, 10, dtype=torch.bool).triu(1)
    with recorded_accumulators() as ours:
        expected = model(x, hidden)
    with recorded_accumulators() as theirs:
        found = loaded.eval()(x, hidden)
    assert len(theirs) == 4
    if policy["name"] in EXACT:
        assert len(ours) == 4
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert torch.equal(expected, found)
    else:
        torch.testing.assert_close(expected, found, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("policy", ASYMMETRIC, ids=policy_id)
def test_products_of_activations_may_have_zero_points_within_bounds(policy: dict[str, Any]) -> None:
    _, packed = trained(policy)
    zero_points = packed.tensors["scores.activation"][:, 1]
    assert zero_points.all()
    packed.check(Attention())
    for wrong in (0.5, 2**16, -(2**16)):
        zero_points[1] = wrong
        with pytest.raises(UserError, match=r"scores\.activation holds .* a zero point that is not an integer"):
            packed.check(Attention())


@pytest.mark.parametrize("policy", POLICIES, ids=policy_id)
def test_gradients_reach_everything(policy: dict[str, Any]) -> None:
    model, _ = trained(policy)
    model.train()(torch.randn(2, 10, 16)).square().sum().backward()
    for name, parameter in model.named_parameters():
        if ".arithmetic." not in name:  # learned ranges have their own tests
            assert parameter.grad is not None
            assert 0 < parameter.grad.abs().sum() < torch.inf


@pytest.mark.parametrize("policy", POLICIES, ids=policy_id)
def test_widths_and_bytes(policy: dict[str, Any]) -> None:
    _, packed = trained(policy)
    assert packed.size_bytes == size_bytes(packed.shapes, packed.bit_map)
    bits = packed.bit_map
    assert (bits["scores"].weight, bits["scores"].activation) == (FLOAT, 8)
    own = policy["name"] == "accelerator_aware"
    for name in ("norm", "softmax"):
        assert (bits[name].weight, bits[name].activation) == (FLOAT, 8 if own else FLOAT)
    assert ("softmax" in packed.header["arithmetic"]) == own


def test_weights_alone_leave_products_of_activations_in_float() -> None:
    model = Attention()
    policy = build_policy({"name": "native_int", "layers": {"*": {"weight": 4}}})
    policy.prepare(model)
    empty = {name for name, layer in quantizable(model).items() if layer.arithmetic is None}
    assert empty == {"norm", "scores", "softmax", "mixture"}


def test_a_pattern_may_name_an_operator() -> None:
    shapes = layer_shapes(Attention())
    policy = build_policy(
        {"name": "native_int", "layers": {"*": {"weight": 4, "activation": 4}, "mixture": {"activation": 8}}}
    )
    assert policy.bit_map(shapes)["mixture"].activation == 8
    with pytest.raises(UserError, match="matches no layer"):
        build_policy({"name": "native_int", "layers": {"mixtures": {"weight": 4}}}).bit_map(shapes)


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("zero", [0.0, 3.0])
def test_accumulators_are_exact(bits: int, zero: float) -> None:
    high = 2 ** (bits - 1) - 1
    x, y = torch.randint(-high, high + 1, (3, 5, 1500)), torch.randint(-high, high + 1, (3, 1500, 4))
    qparams = QParams.read(torch.ones(()), torch.tensor(zero), bits)
    with recorded_accumulators() as found:
        integer_product(x - zero, y - zero, qparams, qparams)
    assert found[0].dtype == (torch.int32 if bits <= 8 else torch.float64)
    assert torch.equal(found[0].long(), (x - int(zero)) @ (y - int(zero)))


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_softmax_in_fixed_point(spec: FixedPoint) -> None:
    x = 3 * torch.randn(200, 30)
    x[:, 20:] = -torch.inf
    found = fixed_point_probabilities(x, spec)
    tolerance = 0.02 if spec.nonlinearity == "linear" else 1e-3
    torch.testing.assert_close(found, x.softmax(-1), atol=tolerance, rtol=0)
    assert not found[:, 20:].any()
    assert torch.equal(found * 2**15, (found * 2**15).round())
    assert torch.equal(fixed_point_probabilities(x[:, :20], spec), found[:, :20])  # hidden ones change nothing


def test_large_scores_do_not_saturate_alike() -> None:
    x = torch.tensor([[17.0, 18.0, 40.0], [-300.0, -301.0, -299.0]])
    torch.testing.assert_close(fixed_point_probabilities(x, FixedPoint()), x.softmax(-1), atol=1e-3, rtol=0)


def test_a_softmax_over_nothing_is_zero() -> None:
    x = torch.full((2, 4), -torch.inf, requires_grad=True)
    y = fixed_point_softmax(x, FixedPoint())
    y.sum().backward()
    assert not y.any()
    assert x.grad is not None
    assert not x.grad.any()


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_normalization_in_fixed_point(spec: FixedPoint, scale: float) -> None:
    x, weight, bias = scale * torch.randn(100, 64), 1 + 0.3 * torch.randn(64), torch.randn(64)
    found = fixed_point_layer_norm(x, weight, bias, 1e-5, spec)
    torch.testing.assert_close(found, F.layer_norm(x, (64,), weight, bias), atol=0.01, rtol=0)
    assert torch.equal(found * 2**11, (found * 2**11).round())


def test_the_normalization_of_constants_and_of_large_inputs() -> None:
    weight, bias = torch.ones(8), torch.zeros(8)
    assert not fixed_point_layer_norm(torch.full((1, 8), 5.0), weight, bias, 1e-5, FixedPoint()).any()
    large = torch.tensor([[1e6, -1e6] * 4])
    assert fixed_point_layer_norm(large, weight, bias, 1e-5, FixedPoint()).abs().max() < 1.01


def test_the_simulator_prices_them() -> None:
    """With the accelerator's own operators nothing crosses over to the CPU; without, softmax and normalization do."""
    shapes = layer_shapes(Attention(64, 30))
    reports = {}
    for name in ("native_int", "accelerator_aware"):
        bit_map = build_policy({"name": name, "layers": {"*": {"weight": 8, "activation": 8}}}).bit_map(shapes)
        reports[name] = simulate(workload(shapes, bit_map), load_accelerator("edge_nna"))
    operators = {operator.name: operator for operator in reports["native_int"].operators}
    assert operators["scores"].macs == operators["mixture"].macs == 64 * 30
    assert {operators[name].processor for name in ("norm", "softmax")} == {"cpu"}
    assert {each.processor for each in reports["accelerator_aware"].operators} == {"accelerator"}
    assert reports["accelerator_aware"].rtf < reports["native_int"].rtf
