"""The amortized encoder: two branches per layer, one state; what is not chosen is not computed."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from real_speech import real_features
from test_bit_exact import POLICIES, UTTERANCES, batches, frozen
from test_training import Stop, assert_same, stopping
from tiny import FEATURES, TOKENIZER, filled, model_config, packed, run_config, speech, talkative
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.bits import LayerShape
from qstudy.errors import UserError
from qstudy.hardware.accelerator import load_accelerator
from qstudy.hardware.simulator import simulate
from qstudy.hardware.workload import workload
from qstudy.model import RNNT, ModelConfig
from qstudy.model.encoders import AmortizedEncoder, Encoder
from qstudy.model.encoders.amortized_lstm import AmortizedLSTM
from qstudy.model.encoders.branches import FullBranch, LowRankBranch, SparseBranch
from qstudy.quant.arithmetic import Arithmetic
from qstudy.quant.integer.accumulator import recorded_accumulators
from qstudy.quant.layers import UNKNOWN, Linear, quantizable
from qstudy.quant.packed.model import PackedModel, fill_packed
from qstudy.quant.packed.program import StackStates
from qstudy.quant.policies import build_policy
from qstudy.quant.quantizers import activation_quantizers
from qstudy.quant.recurrence.cell import lstm_cell, mixed_cell
from qstudy.quant.watching import watching
from qstudy.recognize.greedy import greedy
from qstudy.recognize.recognizer import RecognizerStream, recognizer_from_packed
from qstudy.training.price import price
from qstudy.training.run import run
from qstudy.training.start import read_start

pytestmark = pytest.mark.usefixtures("one_thread")

D, H = 6, 10
BRANCHES = [{"branch": "lowrank", "rank": 5}, {"branch": "sparse", "keep": 0.5}]
every_branch = pytest.mark.parametrize("branch", BRANCHES, ids=lambda branch: branch["branch"])


def encoder_config(**options: Any) -> dict[str, Any]:
    return {"name": "amortized", "hidden": 16, "layers": 2, "stack": 2, "reduction": 2, **options}


def config(**options: Any) -> ModelConfig:
    return ModelConfig(encoder_config(**options), model_config().predictor, model_config().joiner)


def centred(arbitrator: Linear, _inputs: Any, logits: Tensor) -> Tensor:
    """Half of the frames are full."""
    arbitrator.bias.data.sub_(logits.median())
    return logits - logits.median()


def arbitrated(heard: Tensor | None = None, **options: Any) -> RNNT:
    """A model at the end of its training, which takes either branch now and then when it hears such features."""
    model = talkative(config(**options))
    model.encoder.begin_step(1.0)
    handles = [each.arbitrator.register_forward_hook(centred) for each in model.encoder.amortized]
    heard = speech(seed=5) if heard is None else heard
    model.encoder(heard, torch.full((len(heard),), heard.shape[1]))
    for handle in handles:
        handle.remove()
    model.encoder.reset_usage()
    return model


def layer(cheap: str = "lowrank", seed: int = 0) -> AmortizedLSTM:
    torch.manual_seed(seed)
    made = LowRankBranch(D, H, 3, UNKNOWN) if cheap == "lowrank" else SparseBranch(D, H, 0.5, UNKNOWN)
    return AmortizedLSTM(D, H, made, 0.5, UNKNOWN)


def start(batch: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(1, batch, H), torch.zeros(1, batch, H)


# The cell


@pytest.mark.parametrize("portable", ["0", "1"])
def test_the_cell_is_that_of_torch(portable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QSTUDY_PORTABLE", portable)
    torch.manual_seed(0)
    reference, x, h, c = nn.LSTMCell(D, H), torch.randn(4, D), torch.rand(4, H), torch.randn(4, H)
    gates = F.linear(x, reference.weight_ih, reference.bias_ih) + F.linear(h, reference.weight_hh, reference.bias_hh)
    for ours, theirs in zip(lstm_cell(gates, c), reference(x, (h, c)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_gradients_of_the_mixture_are_those_of_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    operands = [torch.randn(4, 4 * H), torch.randn(4, 4 * H), torch.tensor([0.0, 0.3, 0.9, 1.0]), torch.randn(4, H)]
    weights, found = torch.randn(2, 4, H), []
    for portable in ("0", "1"):
        monkeypatch.setenv("QSTUDY_PORTABLE", portable)
        leaves = [each.clone().requires_grad_() for each in operands]
        outputs = mixed_cell(*leaves)
        loss = sum((weight * each).sum() for weight, each in zip(weights, outputs, strict=True))
        found.append([*outputs, *torch.autograd.grad(loss, leaves)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)


# The layer


@pytest.mark.parametrize("cheap", ["lowrank", "sparse"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0], ids=lambda share: f"{share:.0%} full")
def test_a_mixture_of_zeros_and_ones_is_the_choice(cheap: str, share: float) -> None:
    both, x = layer(cheap), torch.randn(3, 9, D)
    full = torch.rand(3, 9) < share
    soft, hard = both.mixed(x, full.float(), start(3)), both.chosen(x, full, start(3))
    torch.testing.assert_close(soft, hard, atol=1e-6, rtol=1e-5)


def test_the_full_branch_alone_is_an_lstm() -> None:
    both, x = layer(), torch.randn(3, 9, D)
    reference = nn.LSTM(D, H, batch_first=True)
    with torch.no_grad():
        reference.weight_ih_l0.copy_(both.full.input.weight)
        reference.weight_hh_l0.copy_(both.full.hidden.weight)
        reference.bias_ih_l0.copy_(both.full.input.bias)
        reference.bias_hh_l0.zero_()
    theirs = reference(x)
    ones = torch.ones(3, 9, dtype=torch.bool)
    for ours in (both.full_alone(x, start(3)), both.chosen(x, ones, start(3))):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


class Counting(Arithmetic):
    """Float, and how many rows it multiplied."""

    rows = 0

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        self.rows += x.numel() // x.shape[-1]
        return F.linear(x, weight, bias)


@every_branch
def test_only_what_is_chosen_is_computed_and_that_is_counted(branch: dict[str, Any]) -> None:
    encoder = arbitrated(**branch).encoder
    layers = quantizable(encoder)
    for each in layers.values():
        each.arithmetic = Counting()
    features = speech(batch=1)
    encoder(features, torch.tensor([80]))
    taken = [each.usage.full for each in encoder.amortized]
    assert all(0 < count < 40 for count in taken)
    for index, count in enumerate(taken):
        rows = {name.removeprefix(f"layers.{index}."): each.arithmetic.rows for name, each in layers.items()}
        own = {part: rows[part] for part in rows if not part.startswith("layers")}
        assert {number for part, number in own.items() if part.startswith("full")} == {count}
        assert {number for part, number in own.items() if part.startswith("cheap")} == {40 - count}
    macs = sum(each.arithmetic.rows * each.in_features * each.out_features for each in layers.values())
    usage = encoder.usage()
    assert usage["macs_per_s"] * usage["audio_s"] == pytest.approx(macs)
    assert usage["audio_s"] == pytest.approx(0.8)
    assert usage["full_share"] == [count / 40 for count in taken]
    assert usage["full_macs_per_s"] == 50 * (4 * 16 * (16 + 16) * 2)
    assert usage["saved"] == 1 - usage["macs_per_s"] / usage["full_macs_per_s"]
    encoder.reset_usage()
    assert encoder.usage() is None


def test_padding_is_not_counted() -> None:
    encoder = arbitrated(**BRANCHES[0]).encoder
    features = speech(batch=2)
    encoder(features, torch.tensor([80, 48]))
    together = encoder.usage()
    encoder.reset_usage()
    encoder(features[:1], torch.tensor([80]))
    encoder(features[1:, :48], torch.tensor([48]))
    apart = encoder.usage()
    assert together == apart


def test_what_becomes_no_frame_is_not_counted() -> None:
    """Stacked features that are left over, where the encoder reduces them by more."""
    encoder = arbitrated(**BRANCHES[0]).encoder
    reduction, stack = encoder.reduction, encoder.chunk_frames // encoder.reduction
    lengths = torch.tensor([80, 8 * reduction * stack + stack * (reduction - 1)])
    encoder(speech(batch=2), lengths)
    counted = [each.usage.frames for each in encoder.amortized]
    assert counted == [reduction * int((lengths // encoder.chunk_frames).sum())] * len(counted)


def test_nothing_is_chosen_where_there_is_no_frame() -> None:
    encoder = arbitrated(**BRANCHES[0]).encoder
    found = encoder.taken(speech(batch=1)[0, : encoder.chunk_frames - 1])
    assert [len(frames) for frames in found.values()] == [0] * 4


def test_decisions_tell_what_was_chosen() -> None:
    encoder = arbitrated(**BRANCHES[0]).encoder.train()
    [features] = speech(batch=1)
    found = encoder.decisions(features)
    assert found.shape == (40, 2)
    assert found.sum(0).tolist() == [each.usage.full for each in encoder.amortized]
    assert encoder.training


def test_an_encoder_around_it_need_not_forward_what_it_is_asked() -> None:
    class Around(Encoder):
        def __init__(self, inner: Encoder) -> None:
            super().__init__(FEATURES)
            self.inner = inner

        def forward(self, *inputs: Any) -> tuple[Tensor, Tensor, Any]:
            return self.inner(*inputs)

    encoder = arbitrated(**BRANCHES[0]).encoder
    [features] = speech(batch=1)
    assert Around(encoder).branching is encoder
    assert {*Around(encoder).taken(features)} == {
        f"encoder.inner.{layers}" for layers in encoder.frames_taken(features)
    }


# Compression


def test_at_full_rank_nothing_is_lost() -> None:
    full, cheap = FullBranch(D, H, UNKNOWN), LowRankBranch(D, H, D + H + 1, UNKNOWN)
    cheap.compress(full)
    x, h = torch.randn(5, D), torch.randn(5, H)
    gates = [each.recurrent()(each.project(x), h) for each in (full, cheap)]
    torch.testing.assert_close(*gates, atol=1e-5, rtol=1e-5)


def test_below_it_the_error_is_the_least_possible() -> None:
    full, cheap = FullBranch(D, H, UNKNOWN), LowRankBranch(D, H, 7, UNKNOWN)
    cheap.compress(full)
    product = cheap.output.weight @ torch.cat([cheap.input.weight, cheap.hidden.weight], 1)
    lost = torch.linalg.svdvals(full.matrix())[7:]
    torch.testing.assert_close((product - full.matrix()).norm(), lost.norm())


def test_pruning_keeps_the_largest_columns() -> None:
    full, cheap = FullBranch(D, H, UNKNOWN), SparseBranch(D, H, 0.5, UNKNOWN)
    with torch.no_grad():
        full.input.weight[:, [0, 3, 4]] *= 10
        full.hidden.weight[:, [1, 2, 5, 8, 9]] *= 10
    cheap.compress(full)
    assert cheap.kept_inputs.tolist() == [0, 3, 4]
    assert cheap.kept_hidden.tolist() == [1, 2, 5, 8, 9]
    x, h = torch.zeros(2, D), torch.zeros(2, H)
    x[:, [0, 3, 4]], h[:, [1, 2, 5, 8, 9]] = torch.randn(2, 3), torch.randn(2, 5)  # what it reads is all that there is
    gates = [each.recurrent()(each.project(x), h) for each in (full, cheap)]
    torch.testing.assert_close(*gates, atol=1e-6, rtol=1e-5)


def test_keeping_all_is_the_full_branch() -> None:
    full, cheap = FullBranch(D, H, UNKNOWN), SparseBranch(D, H, 1.0, UNKNOWN)
    cheap.compress(full)
    x, h = torch.randn(5, D), torch.randn(5, H)
    assert torch.equal(*(each.recurrent()(each.project(x), h) for each in (full, cheap)))


# Stages


@every_branch
def test_the_stages_of_a_training(branch: dict[str, Any]) -> None:
    torch.manual_seed(0)  # with it, both branches are taken in the last stage
    encoder = AmortizedEncoder(FEATURES, **{k: v for k, v in encoder_config(**branch).items() if k != "name"})
    features, lengths = speech(), torch.full((3,), 80)

    def trained(progress: float) -> set[str]:
        """The parts that get a gradient."""
        encoder.train().zero_grad()
        encoder.begin_step(progress)
        encoder(features, lengths)[0].square().sum().backward()
        named = encoder.layers[0].named_parameters()
        return {name.partition(".")[0] for name, each in named if each.grad is not None and each.grad.any()}

    cheap = encoder.layers[0].cheap.hidden.weight
    untouched = cheap.detach().clone()
    assert trained(0.0) == {"full"}
    assert encoder.penalty() is None
    assert torch.equal(cheap, untouched)
    assert trained(0.3) == {"arbitrator", "full", "cheap"}
    assert not torch.equal(cheap, untouched)
    assert encoder.temperature == 1.0
    copied = cheap.detach().clone()
    trained(0.5)
    assert torch.equal(cheap, copied)
    assert 0.2 < encoder.temperature < 1.0
    assert trained(0.7) == {"arbitrator", "full", "cheap"}
    assert encoder.temperature == pytest.approx(0.2)
    again = AmortizedEncoder(FEATURES, **{k: v for k, v in encoder_config(**branch).items() if k != "name"})
    again.load_state_dict(encoder.state_dict())
    again.begin_step(0.0)  # a fine-tune
    assert int(again.stage) == 2
    assert again.temperature == 0.2
    assert torch.equal(again.layers[0].cheap.hidden.weight, copied)


@every_branch
def test_training_ends_in_what_is_evaluated(branch: dict[str, Any]) -> None:
    encoder = arbitrated(**branch).encoder
    features, lengths = speech(), torch.full((3,), 80)
    with torch.no_grad():
        evaluated, *_ = encoder(features, lengths)
    trained, *_ = encoder.train()(features, lengths)
    torch.testing.assert_close(trained, evaluated, atol=1e-4, rtol=1e-4)


def test_the_penalty_is_the_cost_of_valid_frames() -> None:
    encoder = arbitrated(**BRANCHES[0], strength=3.0).encoder
    features, lengths = speech(batch=2), torch.tensor([80, 48])
    with torch.no_grad():
        encoder(features, lengths)
    usage = encoder.usage()
    encoder.train()(features, lengths)
    penalty = encoder.penalty()
    assert penalty.item() == pytest.approx(3 * usage["macs_per_s"] / usage["full_macs_per_s"], rel=1e-5)
    before = encoder.penalty().item()
    arbitrators = [each.arbitrator.bias for each in encoder.amortized]
    for bias, gradient in zip(arbitrators, torch.autograd.grad(penalty, arbitrators), strict=True):
        assert gradient > 0  # down with it, and fewer frames are expensive
        bias.data -= 100.0
    encoder(features, lengths)
    assert encoder.penalty().item() < before


def test_stages_in_order() -> None:
    with pytest.raises(UserError, match=r"hard_from: 0\.2 must not be below branch_from, 0\.3"):
        AmortizedEncoder(FEATURES, hard_from=0.2)


# Streams, quantization, packing


@every_branch
def test_chunks_give_what_the_whole_gives(branch: dict[str, Any]) -> None:
    encoder = arbitrated(**branch, running_mean=20).encoder
    features = speech(batch=1)
    with torch.no_grad():
        whole, _, _ = encoder(features, torch.tensor([80]))
        pieces, state = [], None
        for chunk in features.split([4, 24, 52], 1):
            piece, _, state = encoder(chunk, torch.tensor([chunk.shape[1]]), state)
            pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=1e-5)


def chosen_of(trained: list[Tensor], encoder: AmortizedEncoder, choices: list[Tensor]) -> Iterator[Tensor]:
    """Of the accumulators that training computes, layer by layer, those that evaluation computes, in its order.

    Args:
        trained: of the arbitrator (T, B, 1), the full input (T, B, 4H), the cheap one; then frame by frame the full
            hidden state's (B, 4H), and the cheap branch's.
        encoder: whose they are.
        choices: of each layer, (T, B) bool.
    """
    rest = iter(trained)
    for each, full in zip(encoder.amortized, choices, strict=True):
        per_frame = len(each.cheap.linears()) - 1
        yield next(rest)
        yield next(rest)[full]
        yield next(rest)[~full]
        for rows in full:
            yield next(rest)[rows]
            yield from (next(rest)[~rows] for _ in range(per_frame))


def mismatches(model: RNNT, loaded: RNNT, features: Tensor) -> int:
    """Accumulators of the encoder's training forward pass that the packed one does not reproduce."""
    lengths = torch.full((len(features),), features.shape[1])
    with recorded_accumulators() as trained:
        encoded, *_ = frozen(model).encoder(features, lengths)
    with recorded_accumulators() as evaluated, torch.no_grad():
        again, *_ = loaded.encoder(features, lengths)
    choices = [each.t() for each in loaded.encoder.decided]
    assert encoded.requires_grad
    assert torch.equal(again, encoded)
    assert all(choice.any() and not choice.all() for choice in choices)
    wanted = [each for each in chosen_of(trained, model.encoder, choices) if each.numel()]
    found = [each.reshape(-1, each.shape[-1]) for each in evaluated if each.numel()]
    wanted = [each.reshape(-1, each.shape[-1]) for each in wanted]
    assert [each.shape for each in wanted] == [each.shape for each in found]
    return sum(int((a != b).sum()) for a, b in zip(wanted, found, strict=True))


def loaded_from(device: PackedModel, own: ModelConfig) -> RNNT:
    fill_packed(loaded := talkative(own, seed=9), device)
    return loaded.eval()


@every_branch
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("batch", [1, 3])
def test_what_is_trained_is_what_is_packed(policy: str, branch: dict[str, Any], batch: int) -> None:
    model = arbitrated(**branch)
    device = packed(model, filled(model, POLICIES[policy]), config(**branch))
    loaded = loaded_from(device, config(**branch))
    assert mismatches(model, loaded, speech(batch=batch)) == 0


@every_branch
@pytest.mark.parametrize("policy", ["native_int W4A8", "int4_e2e", "accelerator_aware"])
def test_real_utterances(policy: str, branch: dict[str, Any]) -> None:
    """All of them side by side, as they are trained, and some one by one, as they are heard."""
    features = real_features(FEATURES, UTTERANCES)
    [(together, *_)] = batches(features, UTTERANCES)
    model = arbitrated(together, **branch)
    device = packed(model, filled(model, POLICIES[policy]), config(**branch))
    loaded = loaded_from(device, config(**branch))
    alone = [each[: len(each) // 4 * 4].unsqueeze(0) for each in features[:3]]
    assert sum(mismatches(model, loaded, each) for each in [together, *alone]) == 0


@every_branch
def test_the_program_refuses_frames_and_states_of_other_models(branch: dict[str, Any]) -> None:
    model = arbitrated(**branch)
    device = packed(model, filled(model, POLICIES["native_int W4A8"]), config(**branch))
    program = loaded_from(device, config(**branch)).encoder.program
    x = torch.zeros(1, 1, program.columns)
    assert program.accepts(x)
    assert not program.accepts(x[..., 1:])
    with pytest.raises(RuntimeError, match="do not fit"):
        program(x, StackStates(torch.zeros(2, 1, 1, 8)))


@every_branch
@pytest.mark.parametrize("stage", [0, 2], ids=["full alone", "arbitrated"])
def test_the_program_computes_what_the_layers_do(branch: dict[str, Any], stage: int) -> None:
    model = arbitrated(**branch)
    device = packed(model, filled(model, POLICIES["native_int W4A8"]), config(**branch))
    encoder = copy.deepcopy(loaded_from(device, config(**branch)).encoder)
    encoder.stage.fill_(stage)
    found, features = [], speech(batch=1)
    for program in (encoder.program, None):
        encoder.program, state = program, None
        encoder.reset_usage()
        with recorded_accumulators() as sums, torch.no_grad():
            for chunk in features.split([28, 52], 1):
                encoded, _, state = encoder(chunk, torch.tensor([chunk.shape[1]]), state)
        assert (program is None) == isinstance(state.layers, list)
        found.append((encoded, torch.stack([torch.cat(each) for each in state.layers]), sums, encoder.usage()))
    (first, *_, counted), (second, *_, by_layers) = found
    assert torch.equal(first, second)
    assert torch.equal(found[0][1], found[1][1])
    assert len(found[0][2]) == len(found[1][2]) > 80
    assert all(torch.equal(a, b) for a, b in zip(found[0][2], found[1][2], strict=True))
    assert counted == by_layers
    assert (counted["saved"] == 0) == (stage == 0)


@every_branch
@pytest.mark.parametrize("policy", ["fake_qat", "native_int"])
def test_packed_streams_hear_what_the_whole_says(policy: str, branch: dict[str, Any]) -> None:
    model = arbitrated(**branch)
    widths = {"name": policy, "layers": {"*": {"weight": 4, "activation": 8}}}
    device = packed(model, filled(model, widths), config(**branch))
    recognizer = recognizer_from_packed(device)
    samples = torch.randn(16000, generator=torch.Generator().manual_seed(0)) * 0.1
    stream = RecognizerStream(recognizer)
    for piece in samples.split(1700):
        stream.accept(piece)
    assert stream.finish() == recognizer.transcribe(samples) != ""
    features, lengths = speech(batch=1), torch.tensor([80])
    with torch.no_grad():
        encoded = [each.eval().encoder(features, lengths)[0] for each in (model, recognizer.model)]
    first, second = (
        greedy(each, out, lengths // 4) for each, out in zip((model, recognizer.model), encoded, strict=True)
    )
    assert first.hypotheses == second.hypotheses


class Watching(Arithmetic):
    """Float, and the extremes of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.extremes = torch.zeros(2)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        least, greatest = torch.minimum(self.extremes[0], x.min()), torch.maximum(self.extremes[1], x.max())
        self.extremes = torch.stack([least, greatest])
        return F.linear(x, weight, bias)


def test_ranges_are_those_of_all_frames() -> None:
    """A moving average from frame to frame would know the end of the utterances alone."""
    model = arbitrated(**BRANCHES[0])
    outputs = [each.cheap.output for each in model.encoder.amortized]
    for each in outputs:
        each.arithmetic = Watching()
    with torch.no_grad():
        model.train().encoder(speech(), torch.full((3,), 80))
    wanted = [each.arithmetic.extremes for each in outputs]
    filled(model, {"name": "native_int", "layers": {"*": {"weight": 8, "activation": 8}}}, batches=1)
    for each, extremes in zip(outputs, wanted, strict=True):
        torch.testing.assert_close(
            each.arithmetic.inputs.extremes, extremes, rtol=0.01, atol=0.05
        )  # weights are rounded


def changed_by_quantizers(encoder: AmortizedEncoder) -> list[float]:
    """Of each matrix of the cheap branches, the error of its integers relative to its norm."""
    linears = [linear for layer in encoder.amortized for linear in layer.cheap.linears()]
    errors = []
    for weight, quantizer in ((each.weight.detach(), each.arithmetic.weights[0]) for each in linears):
        codes = quantizer.quantize(weight)
        values = codes.integers if codes.table is None else codes.table[codes.integers.long()]
        errors.append(float((values * codes.scale - weight).norm() / weight.norm()))
    return errors


@every_branch
@pytest.mark.parametrize(
    "policy", [{"name": "s8bqat"}, {"name": "accelerator_aware"}], ids=lambda policy: policy["name"]
)
def test_quantizers_of_a_branch_that_begins_later(policy: dict[str, Any], branch: dict[str, Any]) -> None:
    """They are fitted to its first weights, both before the training and when it begins."""
    model = talkative(config(**branch))
    encoder = model.encoder
    encoder.before_quantization()
    filled(model, {**policy, "layers": {"*": {"weight": 4, "activation": 8}}})
    assert max(changed_by_quantizers(encoder)) < 0.15
    with torch.no_grad():
        for each in encoder.amortized:
            each.full.input.weight.mul_(10)  # training moves it
            each.full.hidden.weight.mul_(10)
    encoder.train().begin_step(0.5)
    assert max(changed_by_quantizers(encoder)) < 0.15


def test_ranges_of_a_branch_that_begins_later() -> None:
    """Calibration has seen what lies between the factors of the compressed weights."""
    model = talkative(config(**BRANCHES[0]))
    with torch.no_grad():
        for each in model.encoder.amortized:
            each.full.input.weight.mul_(50)
    model.encoder.before_quantization()
    begun = copy.deepcopy(model)
    begun.encoder.begin_step(0.5)  # compressed from the same weights
    for each in (model, begun):
        filled(each, {"name": "native_int", "layers": {"*": {"weight": 8, "activation": 8}}})
    ranges = [
        [each.cheap.output.arithmetic.inputs.scale.item() for each in m.encoder.amortized] for m in (model, begun)
    ]
    assert ranges[0] == pytest.approx(ranges[1], rel=0.5)


def test_a_file_keeps_stage_and_columns(tmp_path: Path) -> None:
    model = arbitrated(**BRANCHES[1])
    device = packed(model, filled(model, {"name": "float"}), config(**BRANCHES[1]))
    device.save(tmp_path / "model.qst")
    loaded = loaded_from(PackedModel.load(tmp_path / "model.qst"), config(**BRANCHES[1]))
    assert int(loaded.encoder.stage) == 2
    for ours, theirs in zip(loaded.encoder.amortized, model.encoder.amortized, strict=True):
        assert torch.equal(ours.cheap.kept_hidden, theirs.cheap.kept_hidden)
    features, lengths = speech(), torch.full((3,), 80)
    with torch.no_grad():
        assert torch.equal(loaded.encoder(features, lengths)[0], model.eval().encoder(features, lengths)[0])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("layers.0.cheap.kept_inputs", 10**9, "columns that are not between 0 and 15"),
        ("layers.1.cheap.kept_hidden", -1, "columns that are not between 0 and 15"),
        ("layers.1.cheap.kept_inputs", 16, "columns that are not between 0 and 15"),
        ("layers.0.share", float("nan"), "share of an amortized layer is nan"),
        ("layers.0.share", 1.5, "share of an amortized layer is 1.5"),
        ("stage", 7, "stage of an amortized encoder is 7"),
    ],
)
def test_a_forged_file_is_refused(tmp_path: Path, name: str, value: float, said: str) -> None:
    """Before anything of it runs: a compiled loop would read what is not its own."""
    model = arbitrated(**BRANCHES[1])
    device = packed(model, filled(model, POLICIES["native_int W4A8"]), config(**BRANCHES[1]))
    device.tensors[f"encoder.{name}"].view(-1)[-1] = value
    device.save(tmp_path / "forged.qst")
    with pytest.raises(UserError, match=said):
        loaded_from(PackedModel.load(tmp_path / "forged.qst"), config(**BRANCHES[1]))


# Prices


def test_the_cell_is_priced() -> None:
    """As that of an LSTM, in float: where the accelerator has no mode for it, with a hand-over to the CPU and back."""
    model = RNNT(config(**BRANCHES[0]), FEATURES, 30)
    shapes = model.shapes()
    cells = [shape.name for shape in shapes if shape.kind == "lstm_cell"]
    assert cells == ["encoder.layers.0.cell", "encoder.layers.1.cell"]
    for name in ("native_int", "accelerator_aware"):
        policy = build_policy({"name": name, "layers": {"*": {"weight": 8, "activation": 8}}})
        bit_map = policy.bit_map(shapes)
        assert not set(cells) & set(bit_map)
        report = simulate(workload(shapes, bit_map), load_accelerator("edge_nna"))
        found = [each for each in report.operators if each.layer in cells]
        assert [(each.processor, each.activation_bits) for each in found] == [("cpu", 32)] * 2
        assert all(each.runs == pytest.approx(1000 / 20 * 4.3 / 4) for each in found)  # every frame, with the tail
        without = [shape for shape in shapes if shape.name not in cells]
        assert report.latency_ms > simulate(workload(without, bit_map), load_accelerator("edge_nna")).latency_ms


def test_a_file_without_cells_is_read() -> None:
    """They store nothing; but those that it has must be the model's."""
    model = arbitrated(**BRANCHES[0])
    device = packed(model, filled(model, POLICIES["native_int W4A8"]), config(**BRANCHES[0]))
    device.shapes = [shape for shape in device.shapes if shape.kind != "lstm_cell"]
    assert mismatches(model, loaded_from(device, config(**BRANCHES[0])), speech(batch=1)) == 0
    device.shapes.append(LayerShape("encoder.other", "lstm_cell", outputs=16))
    with pytest.raises(UserError, match=r"encoder\.other is too much"):
        loaded_from(device, config(**BRANCHES[0]))


# Runs


def test_a_run_counts_and_prices_what_it_measured(corpus: Path, shared_folder: Path, tmp_path: Path) -> None:
    encoder = encoder_config(**BRANCHES[0], strength=5.0)
    config = run_config(corpus, shared_folder, model={"encoder": encoder})
    record = run(config, tmp_path, name="amortized")
    usage = record.usage["dev"]
    assert len(usage["full_share"]) == 2
    assert usage["macs_per_s"] == pytest.approx((1 - usage["saved"]) * usage["full_macs_per_s"])
    shapes = {shape.name: shape for shape in PackedModel.load(tmp_path / "model.qst").shapes}
    for index in range(2):
        full, cheap = (shapes[f"encoder.layers.{index}.{part}.hidden"].share for part in ("full", "cheap"))
        assert full + cheap == 1
        assert full == pytest.approx(usage["full_share"][index], abs=1e-6) != 0.5  # what was expected
    assert usage["backlog"].keys() == record.latency.keys()
    assert all(0 < each["latency_ms"] <= each["worst_ms"] for each in usage["backlog"].values())
    before = {shape.name: shape.share for shape in price(config).shapes}
    assert before["encoder.layers.0.full.input"] == 0.5


def test_what_a_start_file_may_differ_in(corpus: Path, shared_folder: Path, tmp_path: Path) -> None:
    """Options that matter while training only, those of a first pass and of a second included."""

    def cascaded(second: float = 0.0, weight: float = 0.5, **options: Any) -> dict[str, Any]:
        blocks = {"blocks": 1, "heads": 2, "kernel": 5, "left": 6, "dropout": second}
        return {"name": "cascaded", "first": encoder_config(**options), "second": blocks, "first_weight": weight}

    made = ModelConfig(cascaded(rank=4), model_config().predictor, model_config().joiner)
    model = talkative(made)
    packed(model, filled(model, {"name": "float"}), made).save(tmp_path / "model.qst")
    config = run_config(corpus, shared_folder)
    config.model = replace(made, encoder=cascaded(0.1, 0.3, rank=4, dropout=0.1, strength=2.0, branch_from=0.0))
    assert read_start(tmp_path / "model.qst", config, TOKENIZER).shapes() == model.shapes()
    config.model = replace(made, encoder=cascaded(rank=5))
    with pytest.raises(UserError, match=r"differs in model\.encoder\.first\.rank \(4 there, 5 here\)"):
        read_start(tmp_path / "model.qst", config, TOKENIZER)


def test_a_stopped_run_goes_on_exactly(corpus: Path, shared_folder: Path, tmp_path: Path) -> None:
    """Stopped before the mixture begins, and in the midst of it."""
    for at, checkpoints in ((6, 3), (8, 7)):
        encoder = encoder_config(**BRANCHES[0], dropout=0.2, branch_from=0.4, hard_from=0.8)
        schedule = {"evaluate_every": at, "checkpoint_every": checkpoints}
        config = run_config(corpus, shared_folder, model={"encoder": encoder}, training=schedule)
        straight, stopped = tmp_path / f"straight{at}", tmp_path / f"stopped{at}"
        run(config, straight, name="straight")
        with pytest.raises(Stop):
            run(config, stopped, name="stopped", report=stopping(at))
        run(config, stopped, name="stopped")
        assert_same(straight, stopped)


def test_a_full_model_becomes_an_amortized_one(corpus: Path, shared_folder: Path, tmp_path: Path) -> None:
    """What matters while training only may differ from the start file's."""
    encoder = encoder_config(**BRANCHES[1], branch_from=1.0, hard_from=1.0)
    config = run_config(corpus, shared_folder, model={"encoder": encoder})
    first = run(config, tmp_path / "full", name="full")
    assert first.usage["dev"]["saved"] == 0
    config.model.encoder = encoder_config(**BRANCHES[1], branch_from=0.0, hard_from=0.5)
    config.start = str(tmp_path / "full" / "model.qst")
    second = run(config, tmp_path / "amortized", name="amortized")
    assert second.usage["dev"]["full_share"] != [1.0, 1.0]


@every_branch
@pytest.mark.parametrize("progress", [0.0, 1.0], ids=["full alone", "either"])
def test_calibration_without_dropout_reaches_all_branches(branch: dict[str, Any], progress: float) -> None:
    """Whatever evaluation would compute of a frame."""
    found = []
    for dropout in (0.0, 0.5):
        model = talkative(config(**branch, dropout=dropout))
        model.encoder.begin_step(progress)
        policy = build_policy({"name": "ptq", "layers": {"encoder.*": {"weight": 8, "activation": 8}}})
        policy.prepare(model)
        with torch.no_grad(), watching(model):
            policy.calibrate(model, (model.encoder(speech(), torch.full((3,), 80)) for _ in range(1)))
        found.append([quantizer.qparams() for quantizer in activation_quantizers(model)])
        model.train()
        with torch.no_grad():
            policy.calibrate(model, (model.encoder(speech(), torch.full((3,), 80)) for _ in range(1)))
        found.append([quantizer.qparams() for quantizer in activation_quantizers(model)])
    evaluating, training, dropping, _ = map(torch.stack, found)
    assert torch.equal(evaluating, training)
    assert torch.equal(evaluating, dropping)
