"""A scale for every group of columns: what is trained is what is packed, in the predicted bytes."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import filled, packed, speech, talkative

from qstudy.errors import UserError
from qstudy.hardware.size import size_bytes
from qstudy.model import RNNT
from qstudy.quant.integer.accumulator import QParams
from qstudy.quant.layers import quantizable
from qstudy.quant.packed.model import PackedModel, fill_packed
from qstudy.quant.policies import POLICIES, build_policy
from qstudy.quant.policies.base import QuantPolicy


@torch.no_grad()
def logits(model: RNNT) -> torch.Tensor:
    result: torch.Tensor = model(speech(), torch.full((3,), 80), torch.ones(3, 4, dtype=torch.int64))[0]
    return result


def both(layers: dict[str, Any], **options: Any) -> tuple[RNNT, RNNT, QuantPolicy, PackedModel]:
    model, loaded = talkative(), talkative(seed=9)
    policy = filled(model, {"name": "ptq", "layers": layers, **options})
    device = packed(model, policy)
    fill_packed(loaded, device)
    return model, loaded.eval(), policy, device


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([2, 3, 4, 8, 16]), st.sampled_from([2, 5, 8, 64]), st.sampled_from([4, 8, 16, 32]), st.booleans()
)
def test_packed_as_trained_in_the_predicted_bytes(bits: int, group: int, activation: int, symmetric: bool) -> None:
    layers = {"*": {"weight": bits, "activation": activation, "granularity": "group", "group": group}}
    model, loaded, policy, device = both(layers, symmetric=symmetric)
    assert device.size_bytes == size_bytes(model.shapes(), policy.bit_map(model.shapes()))
    expected = logits(model)
    limit = 1e-4 if activation == 32 else 0.05  # a rounding tie of a hidden state moves what follows
    assert float((logits(loaded) - expected).abs().mean()) < limit * float(expected.abs().mean())


def test_a_product_is_the_sum_of_its_groups() -> None:
    """Against plain integers, one group after the other."""
    layers = {"joiner.output": {"weight": 4, "activation": 8, "granularity": "group", "group": 5}}
    model, loaded, _, _ = both(layers, symmetric=False)
    layer, there = quantizable(model)["joiner.output"], quantizable(loaded)["joiner.output"]
    x = torch.randn(7, 12)
    codes = layer.arithmetic.weights[0].quantize(layer.matrices()[0])  # type: ignore[union-attr, index, operator]
    step, zero_point = layer.arithmetic.inputs.qparams()  # type: ignore[union-attr, operator]
    whole = QParams.read(step, zero_point, 8).quantize(x).long() - int(zero_point)
    sums = [a @ w.long().t() for a, w in zip(whole.split(5, 1), codes.integers.split(5, 1), strict=True)]
    expected = sum(s * (step * scale) for s, scale in zip(sums, codes.scale.t(), strict=True)) + layer.bias
    torch.testing.assert_close(there(x), expected, rtol=1e-6, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_matrices_are_contiguous_where_groups_do_not_fit(rounding: str) -> None:
    """On a GPU calibration runs cuDNN's LSTM, which takes no others."""
    layers = {"*": {"weight": 5, "activation": 8, "granularity": "group", "group": 5}}
    model, _, _, _ = both(layers, rounding=rounding)
    lstm = quantizable(model)["encoder.lstm.0"]
    for quantizer, matrix in zip(lstm.arithmetic.weights, lstm.matrices(), strict=True):  # type: ignore[union-attr, arg-type]
        assert matrix.shape[1] % 5
        assert quantizer(matrix).is_contiguous()
        assert quantizer.quantize(matrix).integers.is_contiguous()


@pytest.mark.parametrize("range", ["max", "mse", "learned"])
def test_groups_train(range: str) -> None:
    model = talkative()
    layers = {"*": {"weight": 3, "activation": 8, "granularity": "group", "group": 8}}
    filled(model, {"name": "fake_qat", "layers": layers, "weight_range": range})
    model.train()
    model(speech(), torch.full((3,), 80), torch.ones(3, 5, dtype=torch.int64))[0].square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("name", ["native_int", "int4_e2e", "accelerator_aware"])
def test_integer_policies_say_that_they_have_no_groups(name: str) -> None:
    layers = {"*": {"weight": 4, "activation": 8, "granularity": "group"}}
    with pytest.raises(UserError, match=name):
        build_policy({"name": name, "layers": layers}).prepare(talkative())
    assert name in POLICIES
