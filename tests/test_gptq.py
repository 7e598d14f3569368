"""Second-order rounding: outputs that nearest rounding does not reach, by integers that are then kept."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import filled, packed, speech, talkative
from torch import Tensor

from qstudy.quant.layers import quantizable
from qstudy.quant.packed.model import fill_packed
from qstudy.quant.policies.ptq import PTQ
from qstudy.quant.quantizers.blocks import spread
from qstudy.quant.quantizers.gptq import SecondOrderWeights, second_order_codes
from qstudy.quant.quantizers.weights import UniformWeights

SHARED = [("tensor", 64), ("channel", 64), ("group", 16), ("group", 20)]


def correlated(samples: int = 600, columns: int = 48, seed: int = 0) -> Tensor:
    """Inputs (samples, columns) of which most of the variance lies in a few directions, as in a hidden layer."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(columns, columns, generator=generator) * torch.arange(1, columns + 1)[:, None] ** -1.0
    return torch.randn(samples, columns, generator=generator) @ directions


def matrix(rows: int = 32, columns: int = 48, seed: int = 1) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def rounded(weight: Tensor, x: Tensor, bits: int, *options: Any) -> SecondOrderWeights:
    quantizer = SecondOrderWeights(weight, bits, *options)
    quantizer.calibrate(weight)
    for batch in x.split(100):
        quantizer.observe_inputs(batch.view(4, -1, 1, x.shape[1]))
    quantizer.compute_qparams(weight)
    return quantizer


def output_error(x: Tensor, weight: Tensor, quantized: Tensor) -> float:
    return float((x @ (quantized - weight).t()).square().mean() / (x @ weight.t()).square().mean())


@pytest.mark.parametrize(("granularity", "group"), SHARED)
@pytest.mark.parametrize("range", ["max", "mse"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_outputs_come_much_closer_than_by_nearest_rounding(bits: int, range: str, granularity: str, group: int) -> None:
    x, unseen = correlated().split(400)
    weight = matrix()
    options = (granularity, range, True, group)
    nearest = UniformWeights(weight, bits, *options)
    nearest.calibrate(weight)
    quantizer = rounded(weight, x, bits, *options)
    assert output_error(x, weight, quantizer(weight)) < 0.5 * output_error(x, weight, nearest(weight))
    assert output_error(unseen, weight, quantizer(weight)) < 0.6 * output_error(unseen, weight, nearest(weight))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([2, 3, 4, 8, 16]), st.sampled_from(SHARED), st.booleans(), st.integers(0, 999))
def test_codes_stand_for_the_forward_values(bits: int, shared: tuple[str, int], narrow: bool, seed: int) -> None:
    weight = matrix(seed=seed)
    quantizer = rounded(weight, correlated(seed=seed), bits, shared[0], "mse", narrow, shared[1])
    integers, scale, _ = quantizer.quantize(weight)
    assert torch.equal(integers * spread(scale, quantizer.per_scale, weight.shape), quantizer(weight))
    assert quantizer.low <= int(integers.min()) <= int(integers.max()) <= quantizer.high


def test_groups_are_rounded_by_their_own_inputs() -> None:
    """As two matrices of half the rows would be, whose inputs have nothing in common."""
    weight, first, second = matrix(), correlated(), correlated(seed=3).flip(1)
    quantizer = SecondOrderWeights(weight, 3, "channel", "max")
    quantizer.calibrate(weight)
    quantizer.observe_inputs(torch.stack([first, second], 1))
    quantizer.compute_qparams(weight)
    halves = [
        rounded(rows, x, 3, "channel", "max")(rows) for rows, x in zip(weight.chunk(2), (first, second), strict=True)
    ]
    torch.testing.assert_close(quantizer(weight), torch.cat(halves))


def by_its_definition(weight: Tensor, scale: float, hessian: Tensor, high: int) -> Tensor:
    """Frantar et al. 2022, equations 2 and 3, with the inverse of what is left computed anew for every column."""
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)
    rest, codes = weight.double().clone(), torch.zeros_like(weight, dtype=torch.float64)
    left = hessian.diagonal().argsort(descending=True).tolist()
    while left:
        inverse = torch.linalg.inv(damped[left][:, left])
        column = left[0]
        codes[:, column] = (rest[:, column] / scale).round().clamp(-high, high)
        error = (rest[:, column] - codes[:, column] * scale) / inverse[0, 0]
        rest[:, left] -= error[:, None] * inverse[0]
        left = left[1:]
    return codes


@pytest.mark.parametrize("columns", [1, 7, 130, 200])
def test_the_factor_does_what_the_definition_says(columns: int) -> None:
    """More columns than a block of the algorithm has, too."""
    weight, x = matrix(5, columns), correlated(300, columns).double()
    codes = second_order_codes(weight, torch.full_like(weight, 0.3), x.t() @ x, -7, 7)
    expected = by_its_definition(weight, float(torch.tensor(0.3)), x.t() @ x, 7)
    assert (codes == expected).double().mean() > 0.999  # a tie may fall either way


def test_uncorrelated_inputs_are_rounded_to_the_nearest() -> None:
    weight = matrix()
    codes = second_order_codes(weight, torch.full_like(weight, 0.5), torch.eye(48, dtype=torch.float64), -3, 3)
    assert torch.equal(codes.float(), (weight / 0.5).round().clamp(-3, 3))


def test_inputs_that_never_move() -> None:
    """Dead columns, and a layer that saw nothing but zeros."""
    weight, x = matrix(), correlated()
    x[:, 5:9] = 0
    dead = rounded(weight, x, 3, "channel", "max")
    nearest = UniformWeights(weight, 3, "channel", "max")(weight)
    assert torch.equal(dead(weight)[:, 5:9], nearest[:, 5:9])
    assert torch.equal(rounded(weight, torch.zeros(100, 48), 3, "channel", "max")(weight), nearest)


def test_what_calibration_never_multiplies_keeps_the_nearest() -> None:
    weight = matrix()
    quantizer = SecondOrderWeights(weight, 3, "channel", "max")
    quantizer.calibrate(weight)
    quantizer.compute_qparams(weight)
    assert torch.equal(quantizer(weight), UniformWeights(weight, 3, "channel", "max")(weight))


def test_integers_travel_in_a_checkpoint() -> None:
    weight = matrix()
    quantizer = rounded(weight, correlated(), 3, "channel", "mse")
    again = SecondOrderWeights(weight, 3, "channel", "mse")
    again.load_state_dict(quantizer.state_dict())
    assert torch.equal(again(weight), quantizer(weight))


# In a model


def test_every_multiplied_matrix_of_a_model_gathers_what_it_is_multiplied_with() -> None:
    model = talkative()
    seen: dict[str, Tensor] = {}
    lstm = model.encoder.get_submodule("lstm.0")
    lstm.register_forward_hook(lambda module, args, out: seen.update(x=args[0], y=out[0]))
    gathered = {}

    class Watched(SecondOrderWeights):
        def compute_qparams(self, weight: Tensor) -> None:
            gathered[id(self)] = self.hessian.clone()
            super().compute_qparams(weight)

    policy = PTQ({"*": {"weight": 4}}, rounding="gptq")
    policy.weight_quantizer = lambda m, bits: Watched(m, 4, "channel", "max")  # type: ignore[method-assign]
    filled(model, policy, batches=1)
    quantizers = lstm.arithmetic.weights
    x = seen["x"].flatten(0, 1)
    h = torch.cat([torch.zeros_like(seen["y"][:, :1]), seen["y"][:, :-1]], 1).flatten(0, 1)
    torch.testing.assert_close(gathered[id(quantizers[0])][0].float(), x.t() @ x, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(gathered[id(quantizers[1])][0].float(), h.t() @ h, rtol=1e-4, atol=1e-2)
    for name, layer in quantizable(model).items():
        assert all(
            bool(quantizer.chosen) == (name != "predictor.embedding") for quantizer in layer.arithmetic.weights
        ), name


@torch.no_grad()
def logits(model: Any) -> Tensor:
    result: Tensor = model(speech(), torch.full((3,), 80), torch.ones(3, 4, dtype=torch.int64))[0]
    return result


@pytest.mark.parametrize("activation", [32, 8])
@pytest.mark.parametrize("bits", [3, 4])
def test_a_packed_model_computes_with_these_integers(bits: int, activation: int) -> None:
    model = talkative()
    policy = filled(
        model, {"name": "ptq", "layers": {"*": {"weight": bits, "activation": activation}}, "rounding": "gptq"}
    )
    device = packed(model, policy)
    loaded = talkative(seed=5)
    fill_packed(loaded, device)
    expected = logits(model)
    difference = (logits(loaded.eval()) - expected).abs()
    assert float(difference.mean()) < (1e-4 if activation == 32 else 0.02) * float(expected.abs().mean())


def test_a_model_keeps_more_of_its_outputs() -> None:
    exact = logits(talkative())

    def error(rounding: str) -> float:
        model = talkative()
        filled(model, {"name": "ptq", "layers": {"*": {"weight": 3}}, "rounding": rounding}, batches=6)
        return float((logits(model) - exact).square().mean())

    assert error("gptq") < 0.8 * error("nearest")
