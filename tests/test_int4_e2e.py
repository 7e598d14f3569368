"""`int4_e2e`: SAWB, PACT, and the choice among quantizers by calibration."""

from typing import Any

import pytest
import torch
from digits_shapes import DIGITS
from hypothesis import given
from hypothesis import strategies as st
from tiny import TOKENIZER, filled, model_config, run_config, speech, talkative
from torch import Tensor

from qstudy.errors import UserError
from qstudy.hardware.accelerator import load_accelerator
from qstudy.hardware.simulator import simulate
from qstudy.hardware.workload import workload
from qstudy.quant.layers import quantizable
from qstudy.quant.policies import build_policy
from qstudy.quant.policies.int4_e2e import Int4E2E, chosen_quantizers
from qstudy.quant.quantizers import FixedActivations, UniformActivations, UniformWeights, WeightQuantizer
from qstudy.quant.quantizers.chosen import PREFERENCE, ChosenActivations, ChosenWeights, relative_error
from qstudy.quant.quantizers.pact import PactActivations, pact, sample
from qstudy.quant.quantizers.sawb import FamilyWeights, SawbWeights
from qstudy.training.module import TransducerModule

EDGE = load_accelerator("edge_nna")
SEEDS = st.integers(0, 10_000)
pytestmark = pytest.mark.usefixtures("one_thread")  # small tensors


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def logits(model: torch.nn.Module) -> Tensor:
    result: Tensor = model(speech(), torch.full((3,), 80), torch.ones(3, 4, dtype=torch.int64))[0]
    return result


# PACT


@pytest.mark.parametrize("shape", [(8, 512, 40), (64, 64, 64), (2, 3, 8192), (4096, 7), (5,)], ids=str)
def test_a_sample_is_of_all_features_and_frames(shape: tuple[int, ...]) -> None:
    """At equal distances it could be of one."""
    count = torch.Size(shape).numel()
    drawn = sample(torch.arange(count).reshape(shape))
    assert len(drawn) == min(count, 4096) == len(drawn.unique())
    assert torch.equal(drawn, sample(torch.arange(count).reshape(shape)))
    assert len((drawn.long() % shape[-1]).unique()) >= 0.3 * min(shape[-1], len(drawn))
    if len(shape) == 3:
        frames = drawn.long() // shape[-1] % shape[1]
        assert len(frames.unique()) == shape[1]


def test_pact_gradients_are_the_papers() -> None:
    """Choi et al. 2018, arXiv 1805.06085: to x where it is not clipped, to alpha where it is; by sign for signed x."""
    x, upstream = values(200).requires_grad_(), values(200, seed=1)
    alpha = torch.tensor(0.9, requires_grad=True)
    pact(x, alpha, alpha.detach() / 7, 7).backward(upstream)
    above, below = x.detach() >= 0.9, x.detach() <= -0.9
    assert above.any()
    assert below.any()
    assert torch.equal(x.grad, torch.where(above | below, 0.0, upstream))
    torch.testing.assert_close(alpha.grad, upstream[above].sum() - upstream[below].sum())


def test_pact_is_the_clips_own_gradient() -> None:
    """Without rounding PACT is a clamp: autograd of the clamp gives the same gradients."""
    x, other = values(100).requires_grad_(), values(100).requires_grad_()
    alpha, bound = (torch.tensor(0.8, requires_grad=True) for _ in range(2))
    pact(x, alpha, alpha.detach() / 127, 127).square().sum().backward()
    torch.maximum(torch.minimum(other, bound), -bound).square().sum().backward()
    torch.testing.assert_close(alpha.grad, bound.grad)
    torch.testing.assert_close(x.grad, other.grad, atol=2 * 0.8 / 127, rtol=0)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8, 16])
def test_pact_reaches_every_level(bits: int) -> None:
    quantizer = PactActivations(bits)
    quantizer.clip.set(2.0)
    levels = quantizer(torch.linspace(-3, 3, 8 * 2**bits + 1)).detach().unique()
    assert len(levels) == 2**bits - 1
    torch.testing.assert_close(levels[[0, -1]], torch.tensor([-2.0, 2.0]))
    assert quantizer.qparams().tolist() == pytest.approx([2.0 / (2 ** (bits - 1) - 1), 0.0])


@given(st.sampled_from([2, 3, 4, 8]), SEEDS, st.floats(-6, 6))
def test_pact_starts_no_worse_than_the_maximum(bits: int, seed: int, power: float) -> None:
    x = values(2000, seed=seed) ** 3 * 10**power
    learned, largest = PactActivations(bits), UniformActivations(bits)
    for quantizer in (learned, largest):
        quantizer.observe(x)
        quantizer.compute_qparams()
    assert float(relative_error(learned(x), x)) <= float(relative_error(largest(x), x)) * 1.0001


def optimized(decay: float, weight_decay: float, steps: int = 100) -> float:
    """alpha after training to keep 4-bit values close to Gaussian ones."""
    quantizer = PactActivations(4)
    quantizer.clip.set(1.0)
    optimizer = torch.optim.AdamW(quantizer.parameters(), lr=0.04, weight_decay=weight_decay)
    x = values(1000)
    for _ in range(steps):
        optimizer.zero_grad()
        ((quantizer(x) - x).square().mean() + decay * quantizer.alpha.square()).backward()
        optimizer.step()
    return float(quantizer.alpha.detach())


def test_pact_learns_its_clip() -> None:
    assert optimized(0.0, 0.0) > 2.0  # the gradient sees clipping alone, so it grows; decay holds it
    assert 1.0 < optimized(0.01, 0.0) < optimized(0.0, 0.0)
    assert optimized(0.0, 0.01) == pytest.approx(optimized(0.0, 0.0), rel=0.1)  # AdamW's decay is no clip penalty


# The choice


def test_weights_choose_by_their_distribution() -> None:
    def choose(weight: Tensor, bits: int = 4) -> ChosenWeights:
        quantizers: dict[str, WeightQuantizer] = {
            "max": UniformWeights(weight, bits, "tensor", "max"),
            "sawb": SawbWeights(bits, "tensor"),
            "family": FamilyWeights(bits, "tensor"),
        }
        quantizer = ChosenWeights(quantizers)
        quantizer.calibrate(weight)
        expected = {
            name: float((g(weight) - weight).square().sum() / weight.square().sum()) for name, g in quantizers.items()
        }
        assert quantizer.choice.table() == pytest.approx(expected, rel=1e-4)
        assert torch.equal(quantizer(weight), quantizers[quantizer.choice.name](weight))
        return quantizer

    assert choose(values(20, 50), 3).choice.name == "sawb"
    assert choose(torch.linspace(-1, 1, 1000).view(10, 100)).choice.name == "family"
    assert choose(torch.linspace(-1, 1, 1000).view(10, 100), 8).choice.name == "max"


def test_activations_choose_by_their_distribution() -> None:
    def choose(x: Tensor) -> str:
        quantizer = ChosenActivations(
            {"fixed": FixedActivations(4), "max": UniformActivations(4), "pact": PactActivations(4)}
        )
        quantizer.train()
        quantizer.observer_enabled, quantizer.fake_quant_enabled = True, False
        assert torch.equal(quantizer(x), x)
        quantizer.compute_qparams()
        quantizer.fake_quant_enabled = True
        errors = quantizer.choice.table()
        assert errors[quantizer.choice.name] <= PREFERENCE * min(errors.values())
        assert float(relative_error(quantizer(x), x)) == pytest.approx(errors[quantizer.choice.name], rel=1e-5)
        return quantizer.choice.name

    levels = (values(3000).sin() * 7).round() / 7
    assert choose(levels) == "fixed"
    assert choose(5 * levels) == "max"
    assert choose(values(3000)) == "pact"


def calibrated(**options: Any) -> tuple[torch.nn.Module, Int4E2E]:
    model = talkative()
    policy = filled(model, {"name": "int4_e2e", **options})
    assert isinstance(policy, Int4E2E)
    return model, policy


def test_every_tensor_has_a_choice() -> None:
    _, policy = calibrated()
    assert len(policy.chosen) == 10 + 6 + 3  # matrices, inputs, hidden states
    for quantizer, errors in policy.chosen.values():
        assert quantizer in ("fixed", "max", "pact", "sawb", "family")
        assert not errors or errors[quantizer] <= PREFERENCE * min(errors.values())
    assert {name for name, choice in policy.chosen.items() if not choice.errors} == {
        "encoder.lstm.0.hidden",
        "encoder.lstm.1.hidden",
        "predictor.lstm.hidden",
    }
    assert {choice.quantizer for choice in policy.chosen.values()} >= {"fixed", "pact", "sawb", "family"}


@pytest.mark.parametrize(("weights", "activations"), [("max", "max"), ("sawb", "pact"), ("family", "fixed")])
def test_one_quantizer_for_all(weights: str, activations: str) -> None:
    _, policy = calibrated(weight_quantizer=weights, activation_quantizer=activations)
    for tensor, (quantizer, _errors) in policy.chosen.items():
        expected = weights if ".weights." in tensor else "fixed" if tensor.endswith("hidden") else activations
        assert quantizer == expected


def test_choices_live_in_checkpoints() -> None:
    model, policy = calibrated(edges=8)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    again = talkative(seed=4)
    build_policy({"name": "int4_e2e", "edges": 8}).prepare(again)
    again.load_state_dict(state)
    assert {n: c.quantizer for n, c in chosen_quantizers(again).items()} == {
        n: c.quantizer for n, c in policy.chosen.items()
    }
    assert torch.equal(logits(again.eval()), logits(model))


def test_calibration_is_over_when_it_is() -> None:
    """Later batches move `max` ranges while training, never the choice, and nothing piles up."""
    model, policy = calibrated(freeze_step=3)
    before = chosen_quantizers(model)
    for step in (1, 2, 4):
        policy.project_(model.train(), step)
        model(9 * speech(seed=step), torch.full((3,), 80), torch.ones(3, 4, dtype=torch.int64))
    assert chosen_quantizers(model) == before
    quantizers = [module for module in model.modules() if isinstance(module, ChosenActivations)]
    assert all(quantizer._seen is None for quantizer in quantizers)
    scales = [float(quantizer.scale) for quantizer in quantizers]
    model(99 * speech(), torch.full((3,), 80), torch.ones(3, 4, dtype=torch.int64))
    assert [float(quantizer.scale) for quantizer in quantizers] == scales


# Widths


def test_four_bits_everywhere_with_one_scale_per_tensor() -> None:
    bit_map = build_policy({"name": "int4_e2e"}).bit_map(talkative().shapes())
    assert {(bits.weight, bits.activation, bits.granularity) for bits in bit_map.values()} == {(4, 4, "tensor")}
    layers = {"*": {"weight": 3}, "joiner.*": {"granularity": "channel"}}
    bit_map = build_policy({"name": "int4_e2e", "layers": layers}).bit_map(talkative().shapes())
    assert [bits.granularity for bits in bit_map.values()] == ["tensor"] * 4 + ["channel"] * 3


def test_cells_in_float_are_priced_on_the_cpu() -> None:
    """The policy has no integer arithmetic for them: a hand-over there and back at every frame, as native_int's."""
    layers = {"*": {"weight": 4, "activation": 4, "granularity": "tensor"}}
    mine, theirs = (
        simulate(workload(DIGITS, build_policy({"name": name, "layers": layers}).bit_map(DIGITS)), EDGE)
        for name in ("int4_e2e", "native_int")
    )
    assert mine == theirs
    where = {operator.name: operator.processor for operator in mine.operators}
    assert {where[name] for name in where if name.endswith("/cell")} == {"cpu"}
    assert where["joiner.output"] == "accelerator"


def test_edges() -> None:
    bit_map = build_policy({"name": "int4_e2e", "edges": 8}).bit_map(talkative().shapes())
    assert {name: bits.weight for name, bits in bit_map.items() if bits.weight != 4} == {
        "encoder.lstm.0": 8,
        "joiner.output": 8,
    }
    assert all(bits.weight == bits.activation for bits in bit_map.values())
    encoder = {"name": "encoder_only", "base": "int4_e2e", "encoder": {"weight": 4, "activation": 4}, "edges": 8}
    bit_map = build_policy(encoder).bit_map(talkative().shapes())
    assert [bits.weight for bits in bit_map.values()] == [8, 8, 32, 32, 32, 32, 32]  # a float layer is no edge


def test_four_bits_are_not_three() -> None:
    model, _ = calibrated()
    for name, layer in quantizable(model).items():
        for quantizer, matrix in zip(layer.arithmetic.weights, layer.matrices(), strict=True):
            levels = quantizer.quantize(matrix).integers.unique().tolist()
            assert len(levels) > 7, name
            assert max(map(abs, levels)) == 7, name


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"weight_quantizer": "pact"}, ["policy.weight_quantizer", "'pact'", "auto, max, sawb, family"]),
        ({"activation_quantizer": "sawb"}, ["policy.activation_quantizer", "auto, fixed, max, pact"]),
        ({"edges": 9}, ["policy.edges", "9", "8"]),
        ({"layers": {"*": {"weight": 4, "quantizer": "codebook"}}}, ["int4_e2e", "codebook", "s8bqat"]),
        ({"layers": {"*": {"weight": 16}}, "weight_quantizer": "sawb"}, ["SAWB", "16", "2 to 8"]),
        ({"layers": {"*": {"weight": 16}}, "weight_quantizer": "family"}, ["SAWB", "16", "2 to 8"]),
    ],
    ids=str,
)
def test_errors_name_field_and_mend(config: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(UserError) as error:
        build_policy({"name": "int4_e2e", **config}).prepare(talkative())
    assert all(word in str(error.value) for word in named), error.value


def test_wide_weights_have_the_maximum_alone() -> None:
    _, policy = calibrated(layers={"*": {"weight": 16, "activation": 16}})
    assert all(c.quantizer == "max" for name, c in policy.chosen.items() if ".weights." in name)


# Training


def test_the_optimizer_trains_the_clips_that_are_in_use(tmp_path: Any) -> None:
    """Policies are prepared before the optimizer is built: clips are among its parameters, and they move."""
    model, policy = calibrated(activation_quantizer="pact", decay=1e-3)
    schedule = run_config(tmp_path, tmp_path).finetune
    module = TransducerModule(model, policy, schedule, TOKENIZER, seed=0)
    optimizer = module.configure_optimizers()["optimizer"]
    clips = {name: p for name, p in model.named_parameters() if name.endswith("clip.growth")}
    owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert len(clips) == 6
    assert all(id(parameter) in owned for parameter in clips.values())
    before = {name: float(parameter.detach()) for name, parameter in clips.items()}
    for step in range(1, 4):
        optimizer.zero_grad()
        (logits(model.train()).square().mean() + policy.penalty(model, step)).backward()
        optimizer.step()
        policy.project_(model, step)
    assert all(float(parameter.detach()) != before[name] for name, parameter in clips.items())


def test_the_penalty_is_the_squared_clips() -> None:
    model, policy = calibrated(activation_quantizer="pact", decay=0.5)
    found = [module for module in model.modules() if isinstance(module, PactActivations)]
    clips = [float(quantizer.alpha.detach()) for quantizer in found]
    penalty = policy.penalty(model, 0)
    assert float(penalty.detach()) == pytest.approx(0.5 * sum(clip**2 for clip in clips))
    penalty.backward()
    gradients = [float(quantizer.clip.growth.grad) for quantizer in found]
    assert gradients == pytest.approx([clip**2 for clip in clips])
    unused, policy = calibrated(activation_quantizer="max")
    assert float(policy.penalty(unused, 0)) == 0


def test_every_parameter_in_use_gets_a_gradient() -> None:
    model, _ = calibrated()
    logits(model.train()).square().mean().backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    in_use = {f"{n}.candidates.pact.clip.growth" for n, c in chosen_quantizers(model).items() if c.quantizer == "pact"}
    assert in_use
    assert all(name.endswith("pact.clip.growth") for name in idle)
    assert not {name.replace("arithmetic.", "") for name in idle} & in_use


def test_the_clip_follows_the_weights_at_every_step() -> None:
    model, _ = calibrated(weight_quantizer="sawb")
    quantizer = model.encoder.lstm[0].arithmetic.weights[0]
    weight = model.encoder.lstm[0].weight_ih_l0
    before = quantizer.quantize(weight)
    weight.data.mul_(2)
    after = quantizer.quantize(weight)
    assert torch.equal(after.integers, before.integers)
    torch.testing.assert_close(after.scale, 2 * before.scale)


def test_stateless_predictor() -> None:
    model = talkative(model_config({"name": "stateless", "hidden": 16, "embedding": 8}))
    policy = filled(model, {"name": "int4_e2e"})
    assert "predictor.projection.inputs" in policy.chosen  # type: ignore[attr-defined]
