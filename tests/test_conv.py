"""The quantizable convolution: torch's own with an empty slot, a product of windows with a filled one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import qstudy
from qstudy.quant.arithmetic import Arithmetic
from qstudy.quant.conv import Conv1d
from qstudy.quant.integer.accumulator import accumulate_block_diagonal
from qstudy.quant.layers import Rate
from qstudy.quant.policies import build_policy

FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one frame": {"kernel": 1},
    "strided": {"stride": 3},
    "dilated, same": {"dilation": 2, "padding": "same"},
    "reflected": {"padding": 2, "padding_mode": "reflect"},
    "around": {"padding": 1, "padding_mode": "circular", "stride": 2},
    "without bias": {"bias": False, "padding": 1},
    "grouped": {"groups": 2, "padding": 1},
    "depthwise": {"groups": 4, "padding": "same"},
    "depthwise, wider": {"outputs": 8, "groups": 4, "dilation": 2},
}


def made(**options: Any) -> Conv1d:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"inputs": 4, "outputs": 6, "kernel": 3} | (
        {"outputs": 4} if options.get("groups") == 4 else {}
    )
    return Conv1d(**(sizes | options))


def filled(layer: Conv1d, config: dict[str, Any]) -> Arithmetic:
    """Fill the layer's slot and fit it to its weights; activations are in float."""
    model = nn.ModuleList([layer])
    policy = build_policy(config)
    policy.prepare(model)
    policy.calibrate(model, [])
    assert layer.arithmetic is not None
    return layer.arithmetic


@pytest.mark.parametrize("form", FORMS)
def test_empty_slot_is_torch(form: str) -> None:
    ours = made(**FORMS[form])
    given = (ours.in_channels, ours.out_channels, ours.kernel_size, ours.stride, ours.padding, ours.dilation)
    twin = nn.Conv1d(*given, ours.groups, ours.bias is not None, ours.padding_mode)
    twin.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 20)
    assert torch.equal(ours(x), twin(x))


@pytest.mark.parametrize("x", [torch.randn(2, 4, 20), torch.randn(4, 20)], ids=["batch", "one"])
@pytest.mark.parametrize("policy", ["ptq", "native_int"])
@pytest.mark.parametrize("form", FORMS)
def test_filled_slot_convolves_the_quantized_weight(form: str, policy: str, x: torch.Tensor) -> None:
    layer = made(**FORMS[form])
    arithmetic = filled(layer, {"name": policy, "layers": {"*": {"weight": 4}}})
    integers = arithmetic.weights[0].quantize(layer.weight.flatten(1))
    with torch.no_grad():
        weight = (integers.integers * integers.scale).view_as(layer.weight)
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        padded = F.pad(x, layer._reversed_padding_repeated_twice, mode)
        expected = F.conv1d(padded, weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups)
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("policy", ["fake_qat", "native_int", "accelerator_aware"])
def test_gradients_reach_input_and_weight_as_torch_has_them(policy: str) -> None:
    """At 8 bits the straight-through gradient is close to the float one: of a grouped and of a plain layer."""
    for form in ("strided", "grouped", "depthwise"):
        layer, twin = made(**FORMS[form]), made(**FORMS[form])
        model = nn.ModuleList([layer])
        widths = {"weight": 8, "activation": 8}
        built = build_policy({"name": policy, "layers": {"*": widths}, "weight_range": "max"})  # clips no weight
        built.prepare(model)
        x = torch.randn(2, 4, 20)
        model.train()
        built.calibrate(model, (layer(x) for _ in range(2)))
        mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        upstream = torch.randn_like(twin(x))
        layer(mine).backward(upstream)
        twin(other).backward(upstream)
        for found, expected in ((mine.grad, other.grad), (layer.weight.grad, twin.weight.grad)):
            assert (found - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize(
    ("form", "kind", "matrix"),
    [
        ("plain", "conv1d", (6, 12)),
        ("grouped", "conv1d", (6, 6)),
        ("depthwise", "depthwise", (4, 3)),
        ("depthwise, wider", "depthwise", (8, 3)),
    ],
)
def test_shape(form: str, kind: str, matrix: tuple[int, int]) -> None:
    shape = made(**FORMS[form], rate=Rate(every_ms=20.0)).shape("c")
    assert (shape.kind, shape.matrices, shape.vectors, shape.activations) == (kind, (matrix,), matrix[0], 1)
    assert shape.every_ms == 20.0


def test_set_float_is_the_inverse() -> None:
    layer, other = made(), made(bias=True)
    with torch.no_grad():
        other.weight.zero_()
    other.set_float([matrix.detach() for matrix in layer.matrices()], layer.bias_vector())
    x = torch.randn(2, 4, 20)
    assert torch.equal(layer(x), other(x))


WIDTHS = {"weight": 4, "activation": 8}


@pytest.mark.parametrize(
    ("policy", "widths"),
    [
        ("native_int", WIDTHS),
        ("accelerator_aware", WIDTHS),
        ("fake_qat", WIDTHS),
        ("native_int", {"weight": 4}),
        ("fake_qat", {"activation": 8}),
        ("fake_qat", {**WIDTHS, "granularity": "group", "group": 4}),
    ],
    ids=str,
)
@torch.no_grad()
def test_groups_are_computed_as_if_each_had_all_rows(policy: str, widths: dict[str, Any], tmp_path: Path) -> None:
    """Integers to the bit, in training and packed; the simple way, which every arithmetic has, is the oracle."""
    x = torch.randn(2, 4, 20)
    model = qstudy.quantize(nn.Sequential(made(**FORMS["grouped"])), {"name": policy, "layers": {"*": widths}})
    qstudy.pack(qstudy.calibrate(model, [x])).save(tmp_path / "model.qst")
    packed = qstudy.load(tmp_path / "model.qst", into=nn.Sequential(made(**FORMS["grouped"])))
    within = {"rtol": 0.0, "atol": 0.0} if policy != "fake_qat" and widths == WIDTHS else {}
    for layer in (model[0], packed[0]):
        padded = F.pad(x, (1, 1))
        weight = None if layer.weight is None else layer.weight.flatten(1)
        simple = Arithmetic.block_diagonal_linear(layer.arithmetic, padded, weight, layer.bias, layer.windows)
        torch.testing.assert_close(layer(x).transpose(1, 2), simple, **within)
        torch.testing.assert_close(layer(x), model(x), **within)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 40), st.booleans(), st.sampled_from([0, -3]))
def test_accumulators_of_groups_are_exact(groups: int, rows: int, inner: int, wide: bool, zero_point: int) -> None:
    """Those of the group's own product."""
    generator = torch.Generator().manual_seed(inner)
    x = torch.randint(-128, 128, (3, groups, inner), generator=generator).to(torch.int8)
    high = 2**15 if wide else 2**7
    w = torch.randint(-high, high, (groups * rows, inner), generator=generator).to(torch.int16 if wide else torch.int8)
    own = [
        (x[:, group].long() - zero_point) @ w[group * rows : (group + 1) * rows].long().t() for group in range(groups)
    ]
    found = accumulate_block_diagonal(x, torch.tensor(float(zero_point)) if zero_point else None, w)
    assert found.dtype == (torch.float64 if wide else torch.int32)
    assert torch.equal(found.long(), torch.cat(own, 1))
