"""The policy `accelerator_aware`: what is trained is what is packed, and no operator has to leave the accelerator."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from digits_shapes import DIGITS
from tiny import FEATURES, LSTM, STATELESS, filled, model_config, packed, run_config, speech, talkative
from torch import Tensor, nn

import qstudy
from qstudy.bits import BitMap
from qstudy.errors import UserError
from qstudy.hardware.accelerator import load_accelerator
from qstudy.hardware.simulator import Report, candidate_latencies_ms, simulate
from qstudy.hardware.size import size_bytes
from qstudy.hardware.workload import workload
from qstudy.model import RNNT
from qstudy.quant.integer.accumulator import recorded_accumulators
from qstudy.quant.packed.model import PackedModel
from qstudy.quant.policies import build_policy
from qstudy.recognize.greedy import greedy
from qstudy.recognize.recognizer import Recognizer, recognizer_from_packed
from qstudy.training.run import run

W8A8: dict[str, Any] = {"*": {"weight": 8, "activation": 8}}
W2A8: dict[str, Any] = {"*": {"weight": 2, "activation": 8}}  # few bytes: the products stay on any accelerator
POLICIES: list[dict[str, Any]] = [
    {"layers": W8A8},
    {"layers": W8A8, "rounding": "truncate", "nonlinearity": "linear"},
    {"layers": {"*": {"weight": 4, "activation": 8}, "encoder.*": {"granularity": "tensor"}}, "entries": 256},
    {"layers": {"*": {"weight": 2, "activation": 4}}, "weight_range": "max", "cell_fraction": 12},
    {"layers": {"encoder.*": {"weight": 5, "activation": 6}}, "weight_range": "mse", "gate_fraction": 12},
    {"layers": W8A8, "rounding": "truncate", "entries": 16, "cell_bits": 8, "cell_fraction": 4},
    {"layers": W8A8, "linear_fraction": None},
]
IDS = ["W8A8", "truncate", "W4A8", "W2A4", "encoder", "harsh", "floats handed over"]


def trained_and_loaded(options: dict[str, Any]) -> tuple[RNNT, Recognizer, PackedModel]:
    model = talkative()
    policy = filled(model, {"name": "accelerator_aware", **options})
    file = packed(model, policy)
    assert file.size_bytes == size_bytes(model.shapes(), policy.bit_map(model.shapes()))
    return model, recognizer_from_packed(file), file


@torch.no_grad()
def hypotheses(model: RNNT, x: Tensor) -> tuple[list[Tensor], Tensor, list[list[int]]]:
    """All accumulators, the encoder's output, and what greedy search reads in it."""
    with recorded_accumulators() as accumulators:
        encoded, lengths, _ = model.encoder(x, torch.full((len(x),), x.shape[1]))
        texts = greedy(model, encoded, lengths).hypotheses
    return accumulators, encoded, texts


@pytest.mark.parametrize("options", POLICIES, ids=IDS)
def test_the_packed_model_is_the_training_model_to_the_bit(options: dict[str, Any]) -> None:
    model, loaded, _ = trained_and_loaded(options)
    trained, packed_ = hypotheses(model, speech(seed=9)), hypotheses(loaded.model, speech(seed=9))
    assert len(trained[0]) == len(packed_[0]) >= 4
    for mine, other in zip(trained[0], packed_[0], strict=True):
        assert not mine.is_floating_point()
        assert torch.equal(mine, other)
    assert torch.equal(trained[1], packed_[1])
    assert trained[2] == packed_[2]
    assert len(trained[2][0]) > 3 or "cell_bits" in options  # that hurts
    with torch.no_grad():
        inputs = speech(seed=2), torch.full((3,), 80), torch.ones(3, 5, dtype=torch.int64)
        assert torch.equal(model(*inputs)[0], loaded.model(*inputs)[0])


@torch.no_grad()
@pytest.mark.parametrize("predictor", [STATELESS, {**LSTM, "embedding": 12, "tied": True}], ids=["stateless", "tied"])
def test_linear_layers_hand_over_sixteen_bits(predictor: dict[str, Any]) -> None:
    """Logits are multiples of 2**-10 within [-32, 32), in training as packed; what the output layer takes is Q0.15."""
    config = model_config(predictor)
    model = talkative(config)
    policy = filled(model, {"name": "accelerator_aware", "layers": W8A8})
    loaded = recognizer_from_packed(packed(model, policy, config)).model
    inputs = speech(seed=2), torch.full((3,), 80), torch.ones(3, 5, dtype=torch.int64)
    logits = model(*inputs)[0]
    assert torch.equal(logits, loaded(*inputs)[0])
    assert torch.equal(logits, (logits * 2**10).round().clamp(-(2**15), 2**15 - 1) / 2**10)
    for each in (model, loaded):
        bent = each.joiner.output.tanh(torch.linspace(-3, 3, 101))
        assert torch.equal(bent, (bent * 2**15).round() / 2**15)
        assert not torch.equal(bent, torch.linspace(-3, 3, 101).tanh())


def test_an_older_file_hands_over_floats() -> None:
    """Its settings know nothing of what linear layers do now."""
    model, _, file = trained_and_loaded({"layers": W8A8, "linear_fraction": None})
    for settings in file.header["settings"].values():
        for field in ("linear_fraction", "cell_bits"):
            settings.pop(field, None)
    loaded = recognizer_from_packed(file).model
    assert torch.equal(hypotheses(model, speech())[1], hypotheses(loaded, speech())[1])
    with torch.no_grad():
        inputs = speech(), torch.full((3,), 80), torch.ones(3, 5, dtype=torch.int64)
        assert torch.equal(model(*inputs)[0], loaded(*inputs)[0])


@torch.no_grad()
def test_a_stream_is_the_whole_to_the_bit() -> None:
    _, loaded, _ = trained_and_loaded(POLICIES[0])
    encoder, x = loaded.model.encoder, speech(batch=1)
    whole = encoder(x, torch.tensor([80]))[0]
    parts, state = [], None
    for chunk in x.split(encoder.chunk_frames * 3, 1):
        part, _, state = encoder(chunk, torch.tensor([chunk.shape[1]]), state)
        parts.append(part)
    assert torch.equal(torch.cat(parts, 1), whole)


def test_a_file_keeps_the_formats(tmp_path: Path) -> None:
    _, loaded, file = trained_and_loaded(POLICIES[1])
    file.save(tmp_path / "model.qst")
    again = recognizer_from_packed(PackedModel.load(tmp_path / "model.qst"))
    for name in ("encoder.lstm.0", "joiner.output"):
        assert file.header["settings"][name]["nonlinearity"] == "linear"
    assert torch.equal(hypotheses(again.model, speech())[1], hypotheses(loaded.model, speech())[1])


@pytest.mark.parametrize(("field", "value"), [("entries", 3), ("rounding", "up"), ("cell_fraction", 2)])
def test_a_format_that_does_not_exist_is_named_where_it_was_written(field: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"^policy\.{field}: {value!r} is not"):
        build_policy({"name": "accelerator_aware", "layers": W8A8, field: value})
    _, _, file = trained_and_loaded(POLICIES[1])
    file.header["settings"]["joiner.output"][field] = value
    with pytest.raises(UserError, match=rf"settings\.joiner\.output\.{field}: {value!r} is not"):
        file.check(RNNT(model_config(), FEATURES, 29))


@torch.no_grad()
@pytest.mark.parametrize(
    ("options", "allowed"),
    [({}, 0.02), ({"rounding": "truncate"}, 0.04), ({"nonlinearity": "linear"}, 0.15)],
    ids=["table", "truncate", "linear"],
)
def test_eight_bits_stay_near_float(options: dict[str, Any], allowed: float) -> None:
    """Two LSTM layers; outputs lie in (-1, 1)."""
    torch.manual_seed(0)
    model = RNNT(model_config(), FEATURES, 29).eval()
    plain = hypotheses(model, speech())[1]
    filled(model, {"name": "accelerator_aware", "layers": W8A8, **options})
    error = (hypotheses(model, speech())[1] - plain).abs().max()
    assert allowed / 8 < error < allowed


def test_calibration_and_late_activations_compute_in_float() -> None:
    model = talkative()
    policy = filled(model, {"name": "accelerator_aware", "layers": W8A8, "activation_start": 5, "weight_range": "max"})
    policy.project_(model, 4)
    early = hypotheses(model, speech())
    policy.project_(model, 5)
    late = hypotheses(model, speech())
    assert early[0] == []
    assert late[0]
    assert not torch.equal(early[1], late[1])


@pytest.mark.parametrize("fused", [False, True])
def test_grouped_integers_follow_any_optimizer(fused: bool) -> None:
    """A fused one changes weights without a trace that caches could notice."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(4, 4, 3, groups=4), nn.Conv1d(4, 4, 1, groups=2))
    x = torch.randn(2, 4, 9)
    qstudy.calibrate(qstudy.quantize(model, {"name": "accelerator_aware", "layers": W8A8}), [x]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    after = model(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0)  # a change that is noticed
    assert torch.equal(model(x), after)


def test_gradients_reach_every_weight() -> None:
    model = talkative()
    filled(model, {"name": "accelerator_aware", "layers": W8A8})
    model.train()
    logits, *_ = model(speech(), torch.full((3,), 80), torch.ones(3, 5, dtype=torch.int64))
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        if not name.startswith("ctc") and parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ({"*": {"weight": 8}}, "2 to 8 bits"),
        ({"*": {"weight": 16, "activation": 8}}, "2 to 8 bits"),
        ({"*": {"weight": 8, "activation": 8, "granularity": "group"}}, "accelerator_aware has no group"),
    ],
    ids=["float activations", "16 bits", "groups"],
)
def test_what_the_multiplier_does_not_take_is_named(layers: dict[str, Any], said: str) -> None:
    shapes = talkative().shapes()
    with pytest.raises(UserError, match=f"encoder.lstm.0: .*{said}"):
        build_policy({"name": "accelerator_aware", "layers": layers}).bit_map(shapes)


@pytest.mark.usefixtures("one_thread")
def test_a_run_from_baseline_to_record(corpus: Path, shared_folder: Path, tmp_path: Path) -> None:
    policy = {"name": "accelerator_aware", "layers": {"*": {"weight": 4, "activation": 8}}}
    record = run(run_config(corpus, shared_folder, policy=policy), tmp_path, name="aware")
    assert record.training_model_wer == record.metrics["dev"]["wer"]
    assert record.mismatches == 0
    assert record.size_bytes == PackedModel.load(tmp_path / "model.qst").size_bytes
    assert {bits["placement"] for bits in record.bit_map.values()} == {"accelerator"}


@pytest.mark.usefixtures("one_thread")
def test_another_training_is_served_on_the_accelerators_operators(
    corpus: Path, shared_folder: Path, tmp_path: Path
) -> None:
    """`finetune.steps: 0` calibrates and trains nothing: the integers of the weights are those that were trained."""
    layers = {"*": {"weight": 8, "activation": 8}}
    native = run_config(corpus, shared_folder, policy={"name": "native_int", "layers": layers})
    run(native, tmp_path / "native", name="native")
    aware = {"name": "accelerator_aware", "layers": layers, "weight_range": "max"}
    start = str(tmp_path / "native" / "model.qst")
    served = run_config(corpus, shared_folder, policy=aware, start=start, finetune={"steps": 0})
    record = run(served, tmp_path / "served", name="served")
    assert (record.steps, record.train_seconds, record.mismatches) == (0, 0.0, 0)
    assert {bits["placement"] for bits in record.bit_map.values()} == {"accelerator"}
    trained, kept = (PackedModel.load(tmp_path / name / "model.qst").tensors for name in ("native", "served"))
    codes = [name for name in trained if name.endswith(".codes")]
    assert codes
    assert all(torch.equal(trained[name], kept[name]) for name in codes)


# Placement


def bit_map(name: str, layers: dict[str, Any] = W2A8) -> BitMap:
    return build_policy({"name": name, "layers": layers}).bit_map(DIGITS)


def report(bits: BitMap, accelerator: str = "edge_nna") -> Report:
    return simulate(workload(DIGITS, bits), load_accelerator(accelerator))


def test_only_an_aware_policy_keeps_every_operator_on_the_accelerator() -> None:
    aware, other = report(bit_map("accelerator_aware")), report(bit_map("fake_qat"))
    assert {row.processor for row in aware.operators} == {"accelerator"}
    assert {row.name for row in other.operators if row.processor == "cpu"} == {
        "encoder.lstm.0/cell",
        "encoder.lstm.1/cell",
        "encoder.lstm.2/cell",
        "predictor.lstm/cell",
    }
    assert aware.latency_ms < other.latency_ms


@pytest.mark.parametrize(
    ("accelerator", "saves"), [("edge_nna", True), ("mobile_npu", True), ("int4_multicore", False)]
)
@pytest.mark.parametrize("weight", [2, 4, 8])
def test_awareness_saves_latency(weight: int, accelerator: str, saves: bool) -> None:
    """But where the accelerator's own element-wise units compute in floats."""
    layers = {"*": {"weight": weight, "activation": 8}}
    aware, other = (report(bit_map(name, layers), accelerator) for name in ("accelerator_aware", "fake_qat"))
    assert aware.latency_ms is not None
    assert other.latency_ms is not None
    assert (aware.latency_ms < 0.97 * other.latency_ms) is saves
    assert aware.latency_ms <= other.latency_ms


def test_each_cell_is_handed_over_there_and_back() -> None:
    device = load_accelerator("edge_nna")
    assert device.handover
    slower = replace(device, handover=replace(device.handover, latency_us=device.handover.latency_us + 5))
    work = workload(DIGITS, bit_map("fake_qat"))
    for mine, other in zip(simulate(work, device).operators, simulate(work, slower).operators, strict=True):
        assert other.us - mine.us == pytest.approx(10.0 if mine.name.endswith("/cell") else 0.0)


def test_a_pattern_places_layers_whatever_the_policy() -> None:
    layers = {**W2A8, "encoder.*": {"placement": "accelerator"}, "joiner.*": {"placement": "cpu"}}
    rows = report(bit_map("fake_qat", layers)).operators
    placed = {row.name for row in rows if row.processor == "cpu"}
    assert placed == {"predictor.lstm/cell", "joiner.encoder", "joiner.predictor", "joiner.output"}


@pytest.mark.parametrize("accelerator", ["edge_nna", "mobile_npu", "cortex_a76"])
def test_a_layer_in_float_costs_the_same_wherever_its_cell_is_placed(accelerator: str) -> None:
    """It runs on the CPU as a whole: one hand-over, not two."""
    layers = {**W2A8, "encoder.lstm.1": {"weight": 32, "activation": 32, "placement": "accelerator"}}
    apart = {**layers, "encoder.lstm.1": {"weight": 32, "activation": 32, "placement": "products"}}
    assert report(bit_map("fake_qat", layers), accelerator) == report(bit_map("fake_qat", apart), accelerator)


def test_candidates_of_both_kinds_are_priced_together() -> None:
    mixed = bit_map("fake_qat", {**W2A8, "encoder.lstm.0": {"placement": "accelerator"}})
    maps = [bit_map("accelerator_aware"), bit_map("fake_qat"), mixed]
    operators = workload(DIGITS, {}).operators
    found = candidate_latencies_ms(operators, maps, load_accelerator("edge_nna"))
    assert found.tolist() == [report(bits).latency_ms for bits in maps]
    assert found[0] < found[2] < found[1]
