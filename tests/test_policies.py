"""Policies: who gets which widths, what the slots then hold, and a policy of the user's own."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import filled, run_config, speech, talkative

from qstudy.errors import Diverged, UserError
from qstudy.quant.arithmetics.fake import WeightCache
from qstudy.quant.layers import quantizable
from qstudy.quant.policies import build_policy
from qstudy.quant.quantizers import FixedActivations, UniformActivations, UniformWeights
from qstudy.training.price import price

NAMES = [
    "encoder.lstm.0",
    "encoder.lstm.1",
    "predictor.embedding",
    "predictor.lstm",
    "joiner.encoder",
    "joiner.predictor",
    "joiner.output",
]


def widths(config: dict[str, Any]) -> list[int]:
    return [bits.weight for bits in build_policy(config).bit_map(talkative().shapes()).values()]


def quantizers(model: torch.nn.Module) -> list[UniformActivations]:
    return [module for module in model.modules() if isinstance(module, UniformActivations)]


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(speech(), torch.full((3,), 80), torch.ones(3, 4, dtype=torch.int64))[0]
    return result


# Widths


def test_globs() -> None:
    layers = {
        "*": {"weight": 4},
        "encoder.*": {"weight": 3},
        "*.lstm.1": {"weight": 16},
        "joiner.output": {"weight": 8},
    }
    assert widths({"name": "ptq", "layers": layers}) == [3, 16, 4, 4, 4, 4, 8]
    assert list(build_policy({"name": "ptq", "layers": layers}).bit_map(talkative().shapes())) == NAMES


def test_mixed_and_encoder_only_are_maps_over_another_policy() -> None:
    layers = {name: {"weight": bits} for name, bits in zip(NAMES, (8, 2, 4, 3, 5, 6, 7), strict=True)}
    assert widths({"name": "mixed", "layers": layers}) == [8, 2, 4, 3, 5, 6, 7]
    assert widths({"name": "encoder_only", "encoder": {"weight": 4}}) == [4, 4, 32, 32, 32, 32, 32]
    assert widths({"name": "encoder_only", "encoder": {"weight": 4}, "decoder": {"weight": 8}}) == [4, 4, 8, 8, 8, 8, 8]
    assert build_policy({"name": "mixed", "layers": layers}).trains
    over = build_policy({"name": "encoder_only", "encoder": {"weight": 4}, "base": "ptq", "weight_range": "max"})
    assert not over.trains
    assert over.weight_range == "max"  # type: ignore[attr-defined]


def test_float_leaves_every_slot_empty() -> None:
    model = talkative()
    before = logits(model)
    filled(model, {"name": "float"})
    assert all(layer.arithmetic is None for layer in quantizable(model).values())
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"name": "qat"}, ["policy", "'qat'", "float, ptq, fake_qat, ", ", mixed, encoder_only"]),
        ({}, ["policy", "None", "fake_qat"]),
        ({"name": "fake_qat", "layers": {}, "bits": 4}, ["policy", "'fake_qat'", "bits", "layers, weight_range"]),
        ({"name": "fake_qat"}, ["policy", "'fake_qat'", "layers"]),
        (
            {"name": "fake_qat", "layers": {}, "weight_range": "min"},
            ["policy.weight_range", "'min'", "mse, learned"],
        ),
        (
            {"name": "fake_qat", "layers": {}, "activation_range": "kl"},
            ["policy.activation_range", "max, ema, mse, learned"],
        ),
        ({"name": "ptq", "layers": {}, "weight_range": "learned"}, ["policy.weight_range", "'learned'", "max, perc"]),
        ({"name": "ptq", "layers": {}, "activation_range": "ema"}, ["policy.activation_range", "'ema'", "mse, kl"]),
        ({"name": "ptq", "layers": {}, "rounding": "up"}, ["policy.rounding", "'up'", "nearest, gptq"]),
        ({"name": "ptq", "layers": {}, "percentile": 0}, ["policy.percentile", "0"]),
        ({"name": "fake_qat", "layers": {}, "activation_start": -1}, ["policy.activation_start", "0"]),
        ({"name": "mixed", "layers": {}, "base": "qat"}, ["policy", "'qat'", "fake_qat"]),
        ({"name": "mixed", "layers": {}, "base": "mixed"}, ["policy", "mixed"]),
        ({"name": "encoder_only"}, ["policy", "'encoder_only'", "encoder"]),
        ({"name": "mixed", "layers": {}, "weights": 4}, ["policy", "weights", "weight_range"]),
        ({"name": "float", "layers": {}}, ["policy", "'float'", "layers"]),
    ],
    ids=str,
)
def test_errors_name_field_and_choices(config: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(UserError) as error:
        build_policy(config)
    assert all(word in str(error.value) for word in named), error.value


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        ({"encoder.gru": {"weight": 4}}, ["encoder.gru", "encoder.lstm.0"]),
        ({"encoder.normalize": {"weight": 4}}, ["encoder.normalize", "encoder.lstm.0"]),
        ({"*": {"weight": 9}}, ["weight", "9", "2, 3, 4"]),
    ],
    ids=str,
)
def test_patterns_that_do_not_fit_the_model(layers: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(UserError) as error:
        build_policy({"name": "fake_qat", "layers": layers}).prepare(talkative())
    assert all(word in str(error.value) for word in named)


# Slots


def test_slots_hold_what_the_widths_say() -> None:
    model = talkative()
    layers = {
        "encoder.*": {"weight": 3, "activation": 8},
        "joiner.output": {"activation": 16},
        "predictor.emb*": {"weight": 2},
    }
    filled(model, {"name": "fake_qat", "layers": layers})
    slots = {name: layer.arithmetic for name, layer in quantizable(model).items()}
    assert [name for name, slot in slots.items() if slot is None] == [
        "predictor.lstm",
        "joiner.encoder",
        "joiner.predictor",
    ]
    lstm, output, table = slots["encoder.lstm.0"], slots["joiner.output"], slots["predictor.embedding"]
    assert [quantizer.bits for quantizer in lstm.weights] == [3, 3]
    assert (lstm.inputs.bits, lstm.hidden.bits) == (8, 8)
    assert isinstance(lstm.hidden, FixedActivations)
    assert not isinstance(output.weights[0], UniformWeights)
    assert output.inputs.bits == 16
    assert (table.inputs, table.hidden) == (None, None)


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8, 16])
def test_weights_take_so_many_values(bits: int, granularity: str) -> None:
    model = talkative()
    filled(model, {"name": "ptq", "layers": {"*": {"weight": bits, "granularity": granularity}}})
    for layer in quantizable(model).values():
        for quantizer, matrix in zip(layer.arithmetic.weights, layer.matrices(), strict=True):
            quantized = quantizer(matrix.detach())
            rows = [quantized] if granularity == "tensor" else list(quantized)
            assert all(len(row.unique()) <= 2**bits - 1 for row in rows)
            assert quantizer.quantize(matrix).scale.numel() == (1 if granularity == "tensor" else len(matrix))


@pytest.mark.parametrize("activation", [8, 32])
def test_more_bits_are_closer_to_float(activation: int) -> None:
    exact = logits(talkative(seed=3))
    errors = []
    for bits in (2, 4, 8, 16):
        model = talkative(seed=3)
        filled(model, {"name": "ptq", "layers": {"joiner.*": {"weight": bits, "activation": activation}}})
        errors.append(float((logits(model) - exact).square().mean()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[3] < errors[2] * 1.01
    assert activation == 8 or errors[3] < 1e-5


def test_sixteen_bits_are_nearly_float() -> None:
    model = talkative()
    exact = logits(model)
    filled(model, {"name": "ptq", "layers": {"joiner.*": {"weight": 16, "activation": 16}}})
    difference = float((logits(model) - exact).abs().max())
    assert 0 < difference < 1e-2


# Training


def trained_step(model: torch.nn.Module, policy: Any, step: int) -> None:
    model.train()
    model(speech(seed=step), torch.full((3,), 80), torch.ones(3, 5, dtype=torch.int64))[0].square().mean().backward()
    policy.project_(model, step)


def test_every_parameter_gets_a_gradient() -> None:
    model = talkative()
    layers = {"*": {"weight": 3, "activation": 8}}
    policy = filled(model, {"name": "fake_qat", "layers": layers, "activation_range": "learned"})
    trained_step(model, policy, 1)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_ptq_watches_while_calibrating_and_never_again() -> None:
    model = talkative()
    policy = filled(model, {"name": "ptq", "layers": {"*": {"activation": 8}}})
    scales = [float(quantizer.scale) for quantizer in quantizers(model)]
    assert len(set(scales)) > 4
    model.train()
    policy.project_(model, 5)
    logits(model.train())
    assert [float(quantizer.scale) for quantizer in quantizers(model)] == scales


def test_activations_start_late_and_freeze() -> None:
    model = talkative()
    options = {"activation_start": 3, "freeze_step": 5}
    policy = filled(model, {"name": "fake_qat", "layers": {"*": {"activation": 4}}, **options})
    watched = [quantizer for quantizer in quantizers(model) if not isinstance(quantizer, FixedActivations)]
    moved, enabled = [], []
    for step in range(1, 8):
        before = [float(quantizer.scale) for quantizer in watched]
        trained_step(model, policy, step)
        moved.append(before != [float(quantizer.scale) for quantizer in watched])
        enabled.append(all(quantizer.fake_quant_enabled for quantizer in watched))
    assert enabled == [False, False, True, True, True, True, True]
    assert moved == [False, True, True, True, True, False, False]  # `filled` left the model in evaluation mode


@pytest.mark.parametrize(("range", "watches"), [("max", True), ("ema", True), ("mse", False), ("learned", False)])
def test_which_ranges_go_on_watching_while_training(range: str, watches: bool) -> None:
    """A range that calibration or gradients decide is not moved by later batches, however loud."""
    model = talkative()
    policy = filled(model, {"name": "fake_qat", "layers": {"*": {"activation": 4}}, "activation_range": range})
    watched = [quantizer for quantizer in quantizers(model) if not isinstance(quantizer, FixedActivations)]
    assert all(float(quantizer.scale.detach()) != 1 for quantizer in watched)
    model.train()
    policy.project_(model, 1)
    assert {quantizer.observer_enabled for quantizer in watched} == {watches}
    first, before = watched[0], float(watched[0].scale.detach())
    first(torch.full((2, 3), 1e3))
    assert (float(first.scale.detach()) > before) == watches
    assert (first.scale.requires_grad, first.trained) == (range == "learned", range == "learned")


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("range", ["max", "ema", "mse", "learned"])
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_activation_ranges_train(bits: int, range: str, symmetric: bool) -> None:
    model = talkative()
    options = {"activation_range": range, "symmetric": symmetric}
    policy = filled(model, {"name": "fake_qat", "layers": {"*": {"weight": 4, "activation": bits}}, **options})
    trained_step(model, policy, 1)
    learned = [p for quantizer in quantizers(model) if quantizer.trained for p in quantizer.parameters()]
    assert len(learned) == (range == "learned") * (1 if symmetric else 2) * 6
    assert all(p.grad is not None and p.grad.isfinite() for p in learned)
    assert all(p.grad.isfinite().all() for layer in quantizable(model).values() for p in layer.matrices())


def test_evaluation_changes_nothing() -> None:
    model = talkative()
    filled(model, {"name": "fake_qat", "layers": {"*": {"weight": 4, "activation": 8}}})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert torch.equal(logits(model.eval()), logits(model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_fake_quantized_weights_follow_the_optimizer() -> None:
    """Without gradients a fake-quantized matrix is kept; it must not outlive the matrix that it was made from."""
    model = talkative()
    policy = filled(model, {"name": "fake_qat", "layers": {"*": {"weight": 8}}})
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    before = logits(model)
    trained_step(model, policy, 1)
    optimizer.step()
    model.eval()
    after = logits(model)
    assert not torch.equal(after, before)
    for layer in quantizable(model).values():
        layer.arithmetic._fake_quantized = WeightCache()  # type: ignore[union-attr]
    assert torch.equal(logits(model), after)


def test_weights_that_are_not_finite_are_refused_by_name() -> None:
    model = talkative()
    model.joiner.output.weight.data[0, 0] = torch.inf
    with pytest.raises(UserError, match=r"^joiner\.output: its weights"):
        build_policy({"name": "ptq", "layers": {"*": {"weight": 4}}}).prepare(model)


@pytest.mark.parametrize("policy", ["ptq", "fake_qat", "int4_e2e", "native_int", "accelerator_aware", "s8bqat"])
def test_activations_that_are_not_finite_are_refused_by_name(policy: str) -> None:
    """Calibration meets them where a deviation of zero divides."""
    model = talkative()
    model.encoder.normalize.deviation.zero_()
    with pytest.raises(Diverged, match=r"^encoder\.lstm\.0 met values"):
        filled(model, {"name": policy, "layers": {"*": {"weight": 4, "activation": 8}}})


def test_activations_that_would_never_be_quantized_in_training_are_refused(corpus: Path, tmp_path: Path) -> None:
    """The packed model quantizes them all the same."""
    policy = {"name": "fake_qat", "layers": {"*": {"weight": 8, "activation": 8}}, "activation_start": 41}
    for steps in (40, 41):
        config = run_config(corpus, tmp_path, policy=policy, finetune={"steps": steps})
        with nullcontext() if steps == 41 else pytest.raises(UserError, match=r"activation_start: 41 .* of 40 steps"):
            price(config)
