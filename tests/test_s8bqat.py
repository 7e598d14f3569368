"""S8BQAT: codebooks, schedule, compressor, and the packed model that has the same levels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import filled, packed, run_config, speech, talkative
from torch import Tensor, nn

from qstudy.errors import UserError
from qstudy.files import read_json
from qstudy.hardware.size import layer_bytes, size_bytes
from qstudy.model import RNNT
from qstudy.quant.layers import quantizable
from qstudy.quant.packed.bitpack import unpack
from qstudy.quant.packed.model import PackedModel, fill_packed
from qstudy.quant.policies import build_policy
from qstudy.quant.policies.s8bqat import S8BQAT, TYPICAL_STEPS, codebooks
from qstudy.quant.quantizers import UniformWeights
from qstudy.quant.quantizers.codebook import CODEBOOK_WIDTHS, CodebookWeights
from qstudy.recognize.greedy import greedy
from qstudy.training.checkpoint import pack_checkpoint
from qstudy.training.run import run

PAPER: dict[str, Any] = {"recipe": "paper"}


def prepared(bits: int = 4, activation: int = 32, steps: int = 100, **options: Any) -> tuple[RNNT, S8BQAT]:
    model = talkative()
    policy = S8BQAT({"*": {"weight": bits, "activation": activation}}, **options)
    policy.total_steps = steps
    filled(model, policy)
    return model, policy


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    result: Tensor = model(speech(), torch.tensor([80, 71, 66]), torch.tensor([[3, 1, 4, 1]] * 3))[0]
    return result


@torch.no_grad()
def hypotheses(model: RNNT) -> list[list[int]]:
    encoded, lengths, _ = model.encoder(speech(), torch.tensor([80, 71, 66]))
    return greedy(model, encoded, lengths).hypotheses


def shaken(model: nn.Module, size: float = 0.02) -> None:
    """Move every weight as some optimizer steps would."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn_like(parameter))


def on_centroids(model: nn.Module) -> bool:
    return all(torch.equal(matrix, quantizer(matrix)) for matrix, quantizer in codebooks(model))


# Widths


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8, 16])
def test_quantizers_of_every_width(bits: int) -> None:
    model, policy = prepared(bits)
    kinds = {type(quantizer) for layer in quantizable(model).values() for quantizer in layer.arithmetic.weights}  # type: ignore[union-attr]
    assert kinds == {CodebookWeights if bits in CODEBOOK_WIDTHS else UniformWeights}
    for layer in policy.bit_map(model.shapes()).values():
        codebook = bits < 8
        assert (layer.quantizer, layer.granularity) == (("codebook", "tensor") if codebook else ("uniform", "channel"))


@pytest.mark.parametrize("bits", CODEBOOK_WIDTHS)
def test_all_levels_are_used_in_every_matrix(bits: int) -> None:
    model, _ = prepared(bits)
    for matrix, quantizer in codebooks(model):
        assert (quantizer.table.int().diff() > 0).all()
        if matrix.numel() > 50 * 2**bits:
            assert len(quantizer.quantize(matrix).integers.unique()) == 2**bits
            assert len(quantizer(matrix).unique()) == 2**bits


def test_layers_left_in_float_have_no_codebook() -> None:
    model = talkative()
    filled(model, {"name": "s8bqat", "layers": {"encoder.*": {"weight": 3}, "joiner.output": {"activation": 8}}})
    assert len(list(codebooks(model))) == 4  # input and hidden weights of two LSTM layers
    assert quantizable(model)["predictor.lstm"].arithmetic is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"quantize_from": 2.0}, "policy.quantize_from"),
        ({"compress_every": -0.1}, "policy.compress_every"),
        ({"full_strength": 50}, "policy.full_strength"),
        ({"strength": -1.0}, "policy.strength"),
        ({"strength": float("nan")}, "policy.strength"),
        ({"recipe": "theirs"}, "policy.recipe"),
        ({"levels": "even"}, "policy.levels"),
    ],
    ids=str,
)
def test_options_that_make_no_sense(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        build_policy({"name": "s8bqat", "layers": {}, **options})


@pytest.mark.parametrize("bits", [8, 16])
def test_groups_are_refused_where_there_is_no_codebook(bits: int) -> None:
    """A table of a matrix has one scale, whatever is asked for."""
    layers = {"*": {"weight": 4, "granularity": "group"}, "joiner.*": {"weight": bits}}
    with pytest.raises(UserError, match=r"joiner.*: granularity: s8bqat has no group; use fake_qat or ptq"):
        build_policy({"name": "s8bqat", "layers": layers}).bit_map(talkative().shapes())
    del layers["joiner.*"]
    widths = build_policy({"name": "s8bqat", "layers": layers}).bit_map(talkative().shapes())
    assert {bits.granularity for name, bits in widths.items() if bits.quantizer == "codebook"} == {"tensor"}


# Training


def test_weights_are_in_float_until_the_share_says_so() -> None:
    """While training; evaluation sees the centroids at any time."""
    model, policy = prepared(2, quantize_from=0.5, steps=40)
    plain = talkative()
    quantized = logits(model)
    assert not torch.allclose(quantized, logits(plain), atol=0.1)
    for step, in_float in ((0, True), (19, True), (20, False), (40, False)):
        policy.project_(model.train(), step)
        torch.testing.assert_close(logits(model), logits(plain) if in_float else quantized, atol=1e-5, rtol=1e-5)
        assert torch.equal(logits(model.eval()), quantized)


@pytest.mark.parametrize("bits", [8, 16])
def test_what_has_no_codebook_trains_straight_through(bits: int) -> None:
    """Whatever the recipe: no penalty draws it anywhere."""
    model, policy = prepared(bits, **PAPER)
    quantized = logits(model)
    policy.project_(model.train(), 0)
    torch.testing.assert_close(logits(model), quantized, atol=1e-5, rtol=1e-5)
    assert (logits(model) - logits(talkative())).abs().max() > (1e-3 if bits == 8 else 1e-6)


def test_by_default_every_step_sees_the_centroids() -> None:
    model, policy = prepared(2)
    quantized = logits(model)
    policy.project_(model.train(), 0)
    torch.testing.assert_close(logits(model), quantized, atol=1e-5, rtol=1e-5)
    shaken(model)
    assert not on_centroids(model)
    policy.project_(model, 50)
    assert not on_centroids(model)  # the float weights stay


def test_evaluation_follows_the_weights() -> None:
    model, _ = prepared(2, **PAPER)
    before = logits(model)
    shaken(model.train())
    assert not torch.equal(logits(model.eval()), before)


def test_the_compressor_projects_exactly_and_when_it_is_time() -> None:
    model, policy = prepared(3, **PAPER)
    exact = [quantizer(matrix) for matrix, quantizer in codebooks(model)]
    for step, compressed in ((0, False), (19, False), (20, True), (40, True)):
        policy.project_(model.train(), step)
        assert on_centroids(model) == compressed
    assert all(torch.equal(matrix, level) for (matrix, _), level in zip(codebooks(model), exact, strict=True))
    shaken(model)
    policy.project_(model, 41)
    assert not on_centroids(model)
    policy.project_(model, 60)
    assert on_centroids(model)


def test_each_part_of_the_papers_recipe_goes_by_one_option() -> None:
    """The whole; without the penalty; without the compressor; in the forward pass instead of in place."""
    found = []
    for options in ({}, {"strength": 0.0}, {"compress_every": 0.0}, {"quantize_from": 0.0}):
        model, policy = prepared(3, **PAPER, **options)
        shaken(model)
        policy.project_(model.train(), 20)
        centroids_in_forward = quantizable(model)["joiner.output"].arithmetic.weight_fake_quant_enabled
        found.append((bool(policy.penalty(model, 100) > 0), on_centroids(model), centroids_in_forward))
    assert found == [(True, True, False), (False, True, False), (True, False, False), (True, False, True)]


def test_the_papers_recipe_draws_weights_to_their_centroids() -> None:
    """Its penalty alone, where the steps are long enough for the way: then the compressor has little left to do."""
    model, policy = prepared(2, steps=150, compress_every=0.0, recipe="paper")

    def distance() -> float:
        pairs = [
            ((matrix - quantizer(matrix)).abs() / quantizer.levels.diff().min())
            for matrix, quantizer in codebooks(model)
        ]
        return float(torch.cat([each.flatten() for each in pairs]).mean().detach())

    before = distance()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(150):
        optimizer.zero_grad()
        policy.penalty(model, step + 1).backward()
        optimizer.step()
    assert distance() < 0.1 * before


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("options", "left"), [({}, 0.25), (PAPER, 0.7)], ids=["ours", "paper"])
def test_training_wins_back_what_two_bits_cost(options: dict[str, Any], left: float) -> None:
    """By either recipe: squared error of the logits that the device computes, against the float model's."""
    target = logits(talkative())
    model, policy = prepared(2, steps=100, **options)
    before = float((logits(model) - target).square().mean())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    policy.project_(model.train(), 0)
    for step in range(1, 101):
        optimizer.zero_grad()
        output: Tensor = model(speech(), torch.tensor([80, 71, 66]), torch.tensor([[3, 1, 4, 1]] * 3))[0]
        ((output - target).square().mean() + policy.penalty(model, step)).backward()
        optimizer.step()
        policy.project_(model, step)
    assert float((logits(model.eval()) - target).square().mean()) < left * before


@pytest.mark.parametrize("bits", CODEBOOK_WIDTHS)
def test_uniform_levels_are_equally_far_apart(bits: int) -> None:
    """And cost more than Lloyd-Max's on weights that are not."""
    model, policy = prepared(bits, levels="uniform")
    assert policy.bit_map(model.shapes())["joiner.output"].quantizer == "codebook"
    for _, quantizer in codebooks(model):
        gaps = quantizer.table.int().diff()
        assert int(gaps.max() - gaps.min()) <= 1
    weight = torch.randn(100, 200, generator=torch.Generator().manual_seed(0))
    errors = []
    for levels in ("uniform", "lloyd_max"):
        quantizer = CodebookWeights(weight, bits, levels)
        quantizer.calibrate(weight)
        errors.append(float((quantizer(weight) - weight).square().mean()))
    assert 1.01 < errors[0] / errors[1] < 3


def test_no_compression_in_place_once_the_forward_pass_quantizes() -> None:
    model, policy = prepared(3, quantize_from=0.5, compress_every=0.2)
    policy.project_(model.train(), 60)
    assert not on_centroids(model)


def test_lambda_rises_on_a_line_and_stays() -> None:
    model, policy = prepared(4, full_strength=0.4)
    values = [float(policy.penalty(model, step).detach()) for step in (0, 10, 20, 40, 80)]
    assert values[0] == 0
    torch.testing.assert_close(torch.tensor(values[1:]), values[3] * torch.tensor([0.25, 0.5, 1.0, 1.0]))
    assert float(S8BQAT.penalty(policy, talkative(), 40)) == 0  # nothing with a codebook


def test_without_a_length_the_schedule_takes_a_typical_one() -> None:
    model, policy = prepared(4, full_strength=0.5)
    policy.total_steps = None
    half = [float(policy.penalty(model, step).detach()) for step in (TYPICAL_STEPS // 4, TYPICAL_STEPS // 2)]
    assert half[0] == pytest.approx(half[1] / 2)


@pytest.mark.parametrize("bits", CODEBOOK_WIDTHS)
def test_strength_is_the_gradient_that_the_penalty_brings(bits: int) -> None:
    model, policy = prepared(bits, strength=0.7)
    policy.penalty(model, 100).backward()
    gradient = torch.cat([matrix.grad.flatten() for matrix, _ in codebooks(model)])  # type: ignore[union-attr]
    assert 0.35 < float(gradient.norm()) < 1.4


def test_every_weight_gets_a_gradient() -> None:
    model, policy = prepared(2, 8)
    model.train()
    policy.project_(model, 60)
    output = model(speech(), torch.full((3,), 80), torch.ones(3, 5, dtype=torch.int64))[0]
    (output.square().mean() + policy.penalty(model, 60)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


# Packed


def loaded(model: RNNT, policy: S8BQAT) -> tuple[RNNT, PackedModel]:
    device = packed(model, policy)
    fill_packed(other := talkative(seed=9), device)
    return other.eval(), device


@pytest.mark.parametrize("bits", CODEBOOK_WIDTHS)
def test_packed_weights_compute_what_the_training_model_does(bits: int) -> None:
    """Weights alone: the same products, scaled after the sum instead of before it."""
    model, policy = prepared(bits)
    other, _ = loaded(model, policy)
    scale = float(logits(model).abs().max())
    assert float((logits(model) - logits(other)).abs().max()) < 1e-4 * max(scale, 1)
    assert hypotheses(model) == hypotheses(other)
    assert any(hypotheses(model))


@pytest.mark.parametrize("bits", [2, 4, 7, 8])
def test_packed_integers_compute_what_the_training_model_does(bits: int) -> None:
    """With 8-bit activations sums are rounded in another order: now and then a tie falls to the other side."""
    model, policy = prepared(bits, 8)
    other, _ = loaded(model, policy)
    first, second = logits(model), logits(other)
    difference = (first - second).abs()
    assert float(difference.median()) < 1e-3 * float(first.abs().max())
    assert float(difference.mean()) < 0.01 * float(first.abs().mean())
    assert any(hypotheses(model))


@pytest.mark.parametrize("bits", CODEBOOK_WIDTHS)
def test_the_levels_on_the_device_are_those_of_training(bits: int) -> None:
    model, policy = prepared(bits)
    tensors = packed(model, policy).tensors
    for name, layer in quantizable(model).items():
        for index, (matrix, quantizer) in enumerate(zip(layer.matrices(), layer.arithmetic.weights, strict=True)):  # type: ignore[union-attr, arg-type]
            codes, table, scale = (tensors[f"{name}.{index}.{part}"] for part in ("codes", "table", "scale"))
            indices = unpack(codes, bits, tuple(matrix.shape)).int() % 2**bits  # they have no sign
            assert torch.equal(table[indices] * scale, quantizer(matrix)), name


@pytest.mark.parametrize("bits", CODEBOOK_WIDTHS)
@pytest.mark.parametrize("activation", [8, 32])
def test_bytes(bits: int, activation: int, tmp_path: Path) -> None:
    model, policy = prepared(bits, activation)
    _, device = loaded(model, policy)
    shapes = model.shapes()
    assert device.size_bytes == size_bytes(shapes, device.bit_map)
    for shape in (shape for shape in shapes if shape.matrices):
        own = {name: t for name, t in device.tensors.items() if name.startswith(f"{shape.name}.")}
        assert sum(t.nbytes for t in own.values()) == layer_bytes(shape, device.bit_map[shape.name])
        for index, (rows, columns) in enumerate(shape.matrices):
            assert own[f"{shape.name}.{index}.codes"].nbytes == -(-rows * columns * bits // 8)
            assert own[f"{shape.name}.{index}.table"].dtype == torch.int8
            assert own[f"{shape.name}.{index}.table"].shape == (2**bits,)
            assert own[f"{shape.name}.{index}.scale"].shape == (1,)
    device.save(tmp_path / "model.qst")
    fill_packed(again := talkative(seed=5), PackedModel.load(tmp_path / "model.qst"))
    fill_packed(other := talkative(seed=6), device)
    assert torch.equal(logits(again.eval()), logits(other.eval()))


# End to end


class Stop(Exception):
    """Thrown into a training, as a power cut would be."""


def stopping(at: int) -> Callable[[int, float], None]:
    def report(step: int, wer: float) -> None:
        if step == at:
            raise Stop

    return report


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("options", [{}, PAPER], ids=["default", "paper"])
def test_a_run(corpus: Path, shared_folder: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    """Train, stop, go on: the same packed model, which computes what the checkpoint does."""
    policy = {"name": "s8bqat", "layers": {"*": {"weight": 3, "activation": 8}}, **options}
    config = run_config(corpus, shared_folder, policy=policy, finetune={"evaluate_every": 6})
    record = run(config, tmp_path / "straight", name="straight")
    with pytest.raises(Stop):
        run(config, tmp_path / "stopped", name="stopped", report=stopping(6))
    run(config, tmp_path / "stopped", name="stopped")
    first, second = (tmp_path / name / "model.qst" for name in ("straight", "stopped"))
    assert first.read_bytes() == second.read_bytes()
    device = PackedModel.load(first)
    assert record.size_bytes == device.size_bytes == read_json(tmp_path / "straight" / "record.json")["size_bytes"]
    assert record.bit_map["encoder.lstm.0"]["quantizer"] == "codebook"
    assert record.steps == 12
    again = pack_checkpoint(tmp_path / "straight" / "last.ckpt")
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in device.tensors.items())
