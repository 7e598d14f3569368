"""`native_int`: integers in the forward pass of training, their levels, and what flows back through them."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import filled, packed, speech, talkative
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.errors import UserError
from qstudy.quant import bfloat16
from qstudy.quant.arithmetic import LSTMState
from qstudy.quant.arithmetics.by_row import ByRowArithmetic
from qstudy.quant.arithmetics.native import NativeArithmetic, weight_operand
from qstudy.quant.integer.accumulator import recorded_accumulators
from qstudy.quant.layers import LSTM, Embedding, Linear, quantizable
from qstudy.quant.packed.model import fill_packed
from qstudy.quant.policies import build_policy
from qstudy.quant.quantizers import FixedActivations, UniformActivations, UniformWeights

pytestmark = pytest.mark.usefixtures("one_thread")  # small tensors
WIDTHS = [2, 3, 4, 5, 6, 7, 8, 16]
RECIPES = {
    "W8A8": {"weight": 8, "activation": 8},
    "W4A8": {"weight": 4, "activation": 8},
    "W4A4": {"weight": 4, "activation": 4},
    "W4A-float": {"weight": 4},
}


def native(layer: Any, weight: int, activation: int = 32, **options: str) -> NativeArithmetic:
    """The policy's arithmetic for one layer, its input quantizer fitted to [-1, 1]."""
    policy = build_policy({"name": "native_int", "layers": {}, **options})
    bits = build_policy({"name": "native_int", "layers": {"*": {"weight": weight, "activation": activation}}})
    made: NativeArithmetic = policy.arithmetic(layer, bits.bit_map([layer.shape("x")])["x"])
    if made.inputs is not None:
        made.inputs.observe(torch.tensor([-1.0, 1.0]))
    return made


def logits(model: torch.nn.Module) -> Tensor:
    result: Tensor = model(speech(), torch.full((3,), 80), torch.ones(3, 4, dtype=torch.int64))[0]
    return result


# Levels


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("bits", WIDTHS)
def test_weights_reach_every_level(bits: int, granularity: str) -> None:
    high = 2 ** (bits - 1) - 1
    weight = torch.linspace(-1, 1, 6 * high + 1)[None] * 0.3
    codes = weight_operand(UniformWeights(weight, bits, granularity, "max"), weight).codes
    assert codes.dtype == (torch.int8 if bits <= 8 else torch.int16)
    assert codes.unique().tolist() == list(range(-high, high + 1))


@pytest.mark.parametrize("bits", WIDTHS)
def test_inputs_and_hidden_states_reach_every_level(bits: int) -> None:
    """The accumulators of a one-by-one product tell which codes went in."""
    levels = 2**bits - 1
    layer = Linear(1, 1, bias=False)
    layer.arithmetic = native(layer, bits, bits)
    layer.weight.data.fill_(-0.7)
    sweep = torch.linspace(-1.5, 1.5, 4 * levels + 1)[:, None]
    with recorded_accumulators() as record:
        values = layer(sweep)
    assert len(record[0].unique()) == len(values.unique()) == levels
    lstm = LSTM(1, 1)
    lstm.arithmetic = native(lstm, bits, bits)
    state = (sweep.clamp(-1, 1)[None], torch.zeros(1, len(sweep), 1))
    with recorded_accumulators() as record, torch.no_grad():
        lstm(torch.zeros(len(sweep), 1, 1), state)
    assert len(record[1][0, :, 0].unique()) == levels


def test_four_bits_are_not_three() -> None:
    """In a whole calibrated model, the 15 levels of 4 bits are used: more than the 7 of 3."""
    model = talkative()
    filled(model, {"name": "native_int", "layers": {"*": RECIPES["W4A4"]}})
    for name, layer in quantizable(model).items():
        for quantizer, matrix in zip(layer.arithmetic.weights, layer.matrices(), strict=True):
            assert weight_operand(quantizer, matrix).codes.unique().tolist() == list(range(-7, 8)), name


def test_scales_are_the_papers() -> None:
    """max|W| / 127 and max|W| / 7 over the inputs of each output channel."""
    weight = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    for bits, divisor in ((8, 127), (4, 7)):
        scale = weight_operand(UniformWeights(weight, bits, "channel", "max"), weight).scale
        assert torch.equal(scale, weight.abs().amax(1) / divisor)


# Forward, against plain NumPy


SIZE = st.integers(1, 19)


@settings(max_examples=30)
@given(SIZE, SIZE, st.integers(1, 4), st.sampled_from(WIDTHS), st.sampled_from(WIDTHS), st.integers(0, 999))
def test_linear_is_numpys(inputs: int, outputs: int, rows: int, weight: int, activation: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = Linear(inputs, outputs)
    layer.arithmetic = native(layer, weight, activation)
    x = torch.randn(rows, inputs)
    with recorded_accumulators() as record:
        y = layer(x).detach().numpy()
    high = np.float32(2 ** (activation - 1) - 1)
    step = np.float32(1) / high
    codes = np.clip(np.rint(x.numpy() / step), -high, high).astype(np.int64)
    matrix = layer.weight.detach().numpy()
    scale = np.maximum(np.abs(matrix).max(1) / np.float32(2 ** (weight - 1) - 1), np.float32(1e-8))
    integers = np.rint(matrix / scale[:, None]).astype(np.int64)
    accumulators = codes @ integers.T
    assert np.array_equal(record[0].numpy().astype(np.int64), accumulators)
    if max(weight, activation) <= 8:
        expected = accumulators.astype(np.float32) * (step * scale) + layer.bias.detach().numpy()
        assert np.array_equal(y, expected)


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_alone_are_integers_rescaled_after_the_sum(bits: int) -> None:
    torch.manual_seed(0)
    layer, x = Linear(7, 5), torch.randn(3, 7)
    layer.arithmetic = native(layer, bits)
    codes = layer.arithmetic.weights[0].quantize(layer.weight)
    expected = (x @ codes.integers.float().t()) * codes.scale.flatten() + layer.bias
    assert torch.equal(layer(x), expected)


def test_an_embedding_is_rows_of_integers() -> None:
    layer = Embedding(9, 4)
    layer.arithmetic = native(layer, 4)
    codes = layer.arithmetic.weights[0].quantize(layer.weight)
    ids = torch.tensor([[3, 3], [8, 0]])
    assert torch.equal(layer(ids), codes.integers[ids].float() * codes.scale[ids, 0][..., None])
    layer(ids).sum().backward()
    assert torch.equal(layer.weight.grad[:, 0], torch.tensor([1.0, 0, 0, 2, 0, 0, 0, 0, 1]))


@pytest.mark.parametrize("weight", [4, 8])
def test_an_lstm_with_weights_alone_is_close_to_torchs(weight: int) -> None:
    torch.manual_seed(0)
    layer, x = LSTM(6, 8), torch.randn(2, 11, 6)
    layer.arithmetic = native(layer, weight)
    quantized = [
        quantizer(matrix) for quantizer, matrix in zip(layer.arithmetic.weights, layer.matrices(), strict=True)
    ]
    twin = torch.nn.LSTM(6, 8, batch_first=True)
    with torch.no_grad():
        for parameter, value in zip(twin.parameters(), (*quantized, layer.bias_ih_l0, layer.bias_hh_l0), strict=True):
            parameter.copy_(value)
    torch.testing.assert_close(layer(x)[0], twin(x)[0])


# Backward: straight through every rounding (Ding et al. 2022), none to the scales


@pytest.mark.parametrize("activation", [4, 8, 32])
def test_gradients_of_a_linear_layer(activation: int) -> None:
    torch.manual_seed(1)
    layer, x = Linear(6, 5), (1.2 * torch.randn(4, 6)).requires_grad_()
    layer.arithmetic = native(layer, 4, activation)
    upstream = torch.randn(4, 5)
    layer(x).backward(upstream)
    weight = layer.arithmetic.weights[0](layer.weight).detach()
    quantized = x.detach() if activation == 32 else layer.arithmetic.inputs(x).detach()
    inside = torch.ones_like(quantized) if activation == 32 else (x.detach().abs() <= 1).float()
    assert (inside == 0).any() == (activation != 32)
    torch.testing.assert_close(x.grad, (upstream @ weight) * inside)
    torch.testing.assert_close(layer.weight.grad, upstream.t() @ quantized)  # clipped or not: no weight is clipped
    torch.testing.assert_close(layer.bias.grad, upstream.sum(0))
    assert not [name for name, _ in layer.arithmetic.named_parameters()]


def by_autograd(layer: LSTM, x: Tensor, state: LSTMState) -> Tensor:
    """The layer's quantized forward pass, one operator at a time, each rounding with the identity as its gradient."""

    def through(exact: Tensor, rounded: Tensor) -> Tensor:
        return exact + (rounded - exact).detach()

    arithmetic = layer.arithmetic
    w_input, w_hidden = (
        through(matrix, quantizer(matrix))
        for quantizer, matrix in zip(arithmetic.weights, layer.matrices(), strict=True)
    )
    unit = x.detach().abs().amax(-1, keepdim=True) if isinstance(arithmetic, ByRowArithmetic) else 1
    gates = F.linear(arithmetic.inputs(x / unit) * unit, w_input) + layer.bias_ih_l0 + layer.bias_hh_l0
    h, c = state[0][0], state[1][0]
    outputs = []
    for t in range(x.shape[1]):
        i, f, g, o = (gates[:, t] + F.linear(through(h, arithmetic.hidden(h)), w_hidden)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("activation_range", ["ema", "row"])
@pytest.mark.parametrize("bits", [4, 8])
def test_gradients_of_an_lstm(bits: int, activation_range: str) -> None:
    torch.manual_seed(2)
    layer = LSTM(6, 8)
    layer.arithmetic = native(layer, bits, bits, activation_range=activation_range)
    x = (0.8 * torch.randn(3, 9, 6)).requires_grad_()
    state = (0.5 * torch.randn(1, 3, 8).tanh(), torch.randn(1, 3, 8))
    upstream = torch.randn(3, 9, 8)
    gradients = []
    for outputs in (layer(x, state)[0], by_autograd(layer, x, state)):
        layer.zero_grad()
        x.grad = None
        outputs.backward(upstream)
        gradients.append([x.grad, *(parameter.grad for parameter in layer.parameters())])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_row_ends_at_its_largest_magnitude(bits: int) -> None:
    """Each row by the patent's formula, whatever lies beside it; nothing is clipped, and gradients pass whole."""
    torch.manual_seed(3)
    layer, high = Linear(6, 5), 2 ** (bits - 1) - 1
    layer.arithmetic = native(layer, 8, bits, activation_range="row")
    x = (torch.randn(4, 6) * torch.tensor([[1e-3], [1.0], [1e4], [0.0]])).requires_grad_()
    y = layer(x)
    scale = x.detach().abs().amax(1, keepdim=True).clamp_min(1e-12) / high
    weight = layer.arithmetic.weights[0](layer.weight).detach()
    quantized = (x.detach() / scale).round() * scale
    torch.testing.assert_close(y, quantized @ weight.t() + layer.bias, rtol=1e-5, atol=1e-6)
    for row in range(4):
        assert torch.equal(layer(x[row : row + 1])[0], y[row])
    upstream = torch.randn(4, 5)
    y.backward(upstream)
    torch.testing.assert_close(x.grad, upstream @ weight)
    torch.testing.assert_close(layer.weight.grad, upstream.t() @ quantized, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(layer.bias.grad, upstream.sum(0))


@pytest.mark.parametrize("chosen", ["mse", "learned"])
def test_few_values_far_out_leave_the_others_their_levels(chosen: str) -> None:
    """As behind a SiLU: a moving average of the largest ones would make zero of all the rest."""
    torch.manual_seed(6)
    x = torch.randn(64, 32)
    x[0, 0] = 12.0
    layer = Linear(32, 8)
    errors = {}
    for name in ("ema", chosen):
        config = {"name": "native_int", "layers": {"*": {"weight": 8, "activation": 4}}, "activation_range": name}
        policy, model = build_policy(config), nn.Sequential(layer).train()
        policy.prepare(model)
        policy.calibrate(model, (model(x) for _ in range(1)))
        inputs = layer.arithmetic.inputs
        assert inputs.scale.requires_grad == (name == "learned")
        errors[name] = float((inputs.without_observing(x) - x)[1:].square().mean())
    assert errors[chosen] < 0.5 * errors["ema"]


def test_rows_start_with_the_other_activations() -> None:
    model = talkative()
    config = {"name": "native_int", "layers": {"*": RECIPES["W8A8"]}, "activation_range": "row"}
    policy = filled(model, {**config, "activation_start": 2})
    twin = talkative()
    filled(twin, {"name": "native_int", "layers": {"*": {"weight": 8}}})
    torch.testing.assert_close(logits(model), logits(twin))
    policy.project_(model, 2)
    with recorded_accumulators() as found:
        assert not torch.equal(logits(model), logits(twin))
    assert found


def test_bfloat16_gradients_leave_the_forward_pass_alone() -> None:
    results = []
    for gradient in ("float32", "bfloat16"):
        model = talkative()
        filled(model, {"name": "native_int", "layers": {"*": RECIPES["W8A8"]}, "gradient": gradient})
        output = logits(model)
        output.square().mean().backward()
        results.append((output.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    assert torch.equal(results[0][0], results[1][0])
    exact, coarse = results[0][1], results[1][1]
    assert torch.equal(exact, coarse) != bfloat16.multiplies("cpu")  # where it would be emulated, it is float32
    assert float(F.cosine_similarity(exact, coarse, dim=0)) > 0.999


# In a model


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_parameter_gets_a_gradient(recipe: str) -> None:
    model = talkative()
    filled(model, {"name": "native_int", "layers": {"*": RECIPES[recipe]}})
    assert all(isinstance(layer.arithmetic, NativeArithmetic) for layer in quantizable(model).values())
    logits(model.train()).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("recipe", ["W8A8", "W4A8", "W4A4"])
def test_autocast_changes_nothing(recipe: str) -> None:
    """Under bfloat16 autocast, integers and their rescaling stay exact."""
    model = talkative()
    filled(model, {"name": "native_int", "layers": {"*": RECIPES[recipe]}})
    plain = logits(model)
    with torch.autocast("cpu", torch.bfloat16):
        cast = logits(model)
        cast.square().mean().backward()
    assert torch.equal(cast, plain)


def test_autocast_leaves_weights_alone_in_float32() -> None:
    layer, x = Linear(7, 5), torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    layer.arithmetic = native(layer, 4)
    gradients = []
    for enabled in (False, True):
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            layer(x).square().sum().backward()
        gradients.append(layer.weight.grad)
    assert torch.equal(*gradients)


def test_integers_only_once_activations_have_started() -> None:
    """Calibration and the steps before `activation_start` run in float; from then on every layer adds integers."""
    model = talkative()
    policy = filled(model, {"name": "native_int", "layers": {"*": RECIPES["W8A8"]}, "activation_start": 3})
    counts = []
    for step in range(5):
        policy.project_(model.train(), step)
        with recorded_accumulators() as record:
            logits(model)
        counts.append(len(record))
    assert counts == [0, 0, 0, 9, 9]  # three LSTMs of two products, three linear layers


def test_ranges_follow_training_until_they_freeze() -> None:
    model = talkative()
    policy = filled(model, {"name": "native_int", "layers": {"*": RECIPES["W8A8"]}, "freeze_step": 2})
    watched = [m for m in model.modules() if isinstance(m, UniformActivations) and not isinstance(m, FixedActivations)]
    before = [float(quantizer.scale) for quantizer in watched]
    moved = []
    for step in (1, 2, 3):
        policy.project_(model.train(), step)
        model(5 * speech(seed=step), torch.full((3,), 80), torch.ones(3, 4, dtype=torch.int64))
        now = [float(quantizer.scale) for quantizer in watched]
        moved.append(now != before)
        before = now
    assert moved == [True, False, False]
    policy.project_(model.eval(), 0)
    logits(model)
    assert [float(quantizer.scale) for quantizer in watched] == before


def test_quantized_weights_follow_the_optimizer() -> None:
    """Without gradients quantized matrices are kept; they must not outlive the matrices that they were made from."""
    model = talkative()
    filled(model, {"name": "native_int", "layers": {"*": RECIPES["W8A8"]}})
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    with torch.no_grad():
        before = logits(model)
        assert torch.equal(logits(model), before)
    logits(model).square().mean().backward()
    optimizer.step()
    with torch.no_grad():
        after = logits(model)
    assert not torch.equal(after, before)
    assert torch.equal(logits(model), after)


@pytest.mark.parametrize(
    "options",
    [
        {"layers": {"*": {"weight": 3, "activation": 4}}},
        {"layers": {"*": {"weight": 3, "activation": 4}}, "activation_range": "row"},
        {"layers": {"*": {"weight": 3, "activation": 4}}, "activation_range": "mse"},
        {"layers": {"*": {"weight": 3, "activation": 4}}, "activation_range": "learned"},
        {"layers": {"*": {"weight": 3}}},
    ],
    ids=["W3A4", "W3A4 by row", "W3A4 by error", "W3A4 learned", "W3A-float"],
)
def test_training_lowers_the_loss_and_serves_what_it_trained(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = talkative()
    target = logits(model).detach()
    policy = filled(model, {"name": "native_int", **options})
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005)
    losses = []
    for step in range(1, 31):
        optimizer.zero_grad()
        loss = (logits(model.train()) - target).square().mean()
        loss.backward()
        optimizer.step()
        policy.project_(model, step)
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:2])
    fill_packed(loaded := talkative(seed=9), packed(model.eval(), policy))
    with torch.no_grad():
        torch.testing.assert_close(logits(loaded.eval()), logits(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"layers": {}, "gradient": "float16"}, ["policy.gradient", "'float16'", "float32, bfloat16"]),
        ({"layers": {"joiner.*": {"weight": 4, "quantizer": "codebook"}}}, ["joiner.encoder", "codebook", "s8bqat"]),
        ({"layers": {"joiner.*": {"weight": 4, "granularity": "group"}}}, ["joiner.encoder", "group", "fake_qat"]),
    ],
    ids=str,
)
def test_errors_name_field_and_mend(config: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(UserError) as error:
        build_policy({"name": "native_int", **config}).bit_map(talkative().shapes())
    assert all(word in str(error.value) for word in named), error.value
