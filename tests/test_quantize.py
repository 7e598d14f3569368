"""Any torch model, quantized: the same to the bit before, close after, and from its file what it was."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchaudio.models import emformer_rnnt_model

import qstudy
from qstudy.errors import UserError
from qstudy.quant.deep_lstm import DeepLSTM
from qstudy.quant.layers import Quantizable, Rate, quantizable
from qstudy.quant.operators import LayerNorm
from qstudy.quant.packed.model import PackedModel
from qstudy.quant.policies import build_policy

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
W8A8 = {"weight": 8, "activation": 8}


class Everything(nn.Module):
    """Every kind of layer that has a twin, and what lies between them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 12, padding_idx=0)
        self.conv = nn.Conv1d(12, 16, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm1d(16)
        self.depthwise = nn.Conv1d(16, 16, 5, padding="same", groups=16, dilation=2, padding_mode="reflect")
        self.grouped = nn.Conv1d(16, 32, 3, groups=4, bias=False)
        self.lstm = nn.LSTM(32, 10, 2, bidirectional=True, dropout=0.1)
        self.output = nn.Linear(20, 5)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(torch.tanh(self.conv(self.embedding(ids).transpose(1, 2))))
        x = self.grouped(torch.relu(self.depthwise(x)))
        return self.output(self.lstm(x.permute(2, 0, 1))[0])


def everything(seed: int = 0) -> Everything:
    torch.manual_seed(seed)
    return Everything().eval()


def emformer(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return emformer_rnnt_model(
        input_dim=16,
        encoding_dim=32,
        num_symbols=20,
        segment_length=8,
        right_context_length=4,
        time_reduction_input_dim=16,
        time_reduction_stride=4,
        transformer_num_heads=2,
        transformer_ffn_dim=32,
        transformer_num_layers=2,
        transformer_dropout=0.1,
        transformer_activation="gelu",
        transformer_left_context_length=6,
        transformer_max_memory_size=0,
        transformer_weight_init_scale_strategy="depthwise",
        transformer_tanh_on_mem=True,
        symbol_embedding_dim=12,
        num_lstm_layers=2,
        lstm_layer_norm=True,
        lstm_layer_norm_epsilon=1e-3,
        lstm_dropout=0.1,
    ).eval()


def ids(seed: int) -> Tensor:
    return torch.randint(0, 11, (3, 40), generator=torch.Generator().manual_seed(seed))


def speech_and_labels(seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    features, targets = torch.randn(2, 36, 16, generator=generator), torch.randint(1, 20, (2, 6), generator=generator)
    return features, torch.tensor([36, 36]), targets, torch.tensor([6, 5])


MODELS: dict[str, Any] = {"every layer": (everything, ids), "emformer": (emformer, speech_and_labels)}
INTEGER = {
    "native_int": {"name": "native_int", "layers": {"*": W8A8}},
    "accelerator_aware": {"name": "accelerator_aware", "layers": {"*": W8A8}},
    "int4_e2e": {"name": "int4_e2e"},
    "encoder_only": {"name": "mixed", "base": "native_int", "layers": {"*": {"weight": 4, "activation": 8}}},
}
POLICIES: dict[str, dict[str, Any]] = {
    **INTEGER,
    "fake_qat": {"name": "fake_qat", "layers": {"*": W8A8}},
    "groups": {"name": "fake_qat", "layers": {"*": W8A8 | {"granularity": "group", "group": 8}}},
    "s8bqat": {"name": "s8bqat", "layers": {"*": {"weight": 6, "activation": 8}}},
    "ptq": {"name": "ptq", "layers": {"*": W8A8}},
    "gptq": {"name": "ptq", "rounding": "gptq", "layers": {"*": W8A8}},
    "weights": {"name": "native_int", "layers": {"*": {"weight": 8}}},
    "activations": {"name": "fake_qat", "layers": {"*": {"activation": 8}}},
}


def first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


@torch.no_grad()
def answer(model: nn.Module, batch: Any) -> Tensor:
    return first(model(*batch) if isinstance(batch, tuple) else model(batch))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", MODELS)
def test_from_float_to_a_file_and_back(kind: str, policy: str, tmp_path: Path) -> None:
    build, batch = MODELS[kind]
    model, twin = build(), build()
    qstudy.quantize(model, POLICIES[policy])
    assert torch.equal(answer(model, batch(0)), answer(twin, batch(0)))
    qstudy.calibrate(model, [batch(seed) for seed in range(3)])
    exact, quantized = answer(twin, batch(0)), answer(model, batch(0))
    assert 0 < (quantized - exact).norm() < 0.6 * exact.norm()
    packed = qstudy.pack(model)
    assert packed.size_bytes == qstudy.size_bytes(model)
    packed.save(str(tmp_path / "model.qst"))
    loaded = answer(qstudy.load(str(tmp_path / "model.qst"), into=build(seed=9)), batch(0))
    if policy in INTEGER:
        assert torch.equal(loaded, quantized)
    torch.testing.assert_close(loaded, quantized, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", MODELS)
def test_parameters_keep_their_names(kind: str) -> None:
    model, twin = MODELS[kind][0](), MODELS[kind][0](seed=9)
    qstudy.quantize(model, POLICIES["ptq"])
    assert {name: each.shape for name, each in model.state_dict().items()} == {
        name: each.shape for name, each in twin.state_dict().items()
    }
    model.load_state_dict(twin.state_dict())
    fresh = MODELS[kind][0](seed=3)
    fresh.load_state_dict(model.state_dict())
    batch = MODELS[kind][1](0)
    assert torch.equal(answer(fresh, batch), answer(twin, batch))


def test_the_readmes_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n# any_model\.py\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "any_model"}
    torch.manual_seed(0)
    exec(code, names)
    size, _, latency, _ = capsys.readouterr().out.replace(",", "").split()
    assert int(size) == PackedModel.load("tagger.qst").size_bytes < 20_000
    assert 0 < float(latency) < 10
    frames = torch.randn(2, 30, 40)
    assert torch.equal(answer(names["packed"], frames), answer(names["model"], frames))


def test_training_goes_on_from_there() -> None:
    """By the policy's own schedule: the penalty in the loss, `project_` after each step."""
    model = qstudy.quantize(everything(), {"name": "s8bqat", "layers": {"*": {"weight": 3, "activation": 8}}})
    qstudy.calibrate(model, map(ids, range(2)))
    policy = model.quant_policy
    assert isinstance(policy, qstudy.quant.policies.QuantPolicy)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    model.train()
    for step in range(1, 9):
        optimizer.zero_grad()
        loss = model(ids(0)).square().mean()
        loss.backward()
        assert not model.embedding.weight.grad[0].any()  # the padding's row is not trained
        policy.penalty(model, step).backward()
        optimizer.step()
        policy.project_(model, step)
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_calibration_leaves_the_rest_of_the_model_as_it_was() -> None:
    model = everything()
    model.conv.train()
    before = copy.deepcopy(model.norm.state_dict())
    qstudy.quantize(model, POLICIES["fake_qat"])
    qstudy.calibrate(model, lambda given: [given(ids(seed)) for seed in range(2)])
    assert model.conv.training
    assert not model.norm.training
    assert all(torch.equal(before[name], value) for name, value in model.norm.state_dict().items())
    assert torch.equal(answer(model, ids(0)), answer(model, ids(0)))  # no dropout, and no observer moves


def test_what_a_rate_is_known_of_has_a_latency(tmp_path: Path) -> None:
    seldom = Rate(40.0, share=0.5, frames=4, after_end=True)
    rates = {"*": 40.0, "predictor.*": Rate(per_label=1), "transcriber.*": seldom}
    model = qstudy.quantize(emformer(), POLICIES["ptq"], rates=rates)
    latency = qstudy.simulate(model).latency_ms
    assert latency is not None
    assert qstudy.simulate(model, bits="w2a8").latency_ms < latency
    shapes = {name: layer.shape(name) for name, layer in quantizable(model).items()}
    assert shapes["joiner.linear"].every_ms == 40.0
    assert (shapes["predictor.embedding"].every_ms, shapes["predictor.embedding"].per_label) == (None, 1)
    qstudy.calibrate(model, map(speech_and_labels, range(2)))
    path = tmp_path / "model.qst"
    qstudy.pack(model).save(path)
    assert qstudy.simulate(path).latency_ms == qstudy.simulate(qstudy.pack(model)).latency_ms == latency
    loaded = quantizable(qstudy.load(path, into=emformer()))
    assert {name: layer.rate for name, layer in loaded.items()} == {n: o.rate for n, o in quantizable(model).items()}
    assert seldom in {layer.rate for layer in loaded.values()}
    half = qstudy.quantize(emformer(), POLICIES["ptq"], rates={"transcriber.*": 40.0})
    report = qstudy.simulate(half)
    assert report.latency_ms is report.rtf is None
    assert report.untimed[0] == "predictor.embedding"


def test_layers_that_share_a_weight_come_back(tmp_path: Path) -> None:
    class Tied(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Embedding(7, 6), nn.Linear(6, 7))
            self[1].weight = self[0].weight

    model = qstudy.calibrate(qstudy.quantize(Tied(), POLICIES["native_int"]), [torch.arange(7)])
    assert model[0].weight is model[1].weight
    qstudy.pack(model).save(tmp_path / "tied.qst")
    loaded = qstudy.load(tmp_path / "tied.qst", into=Tied())
    assert torch.equal(answer(loaded, torch.arange(7)), answer(model, torch.arange(7)))


def test_a_fused_transformer_does_not_go_past_the_slots(tmp_path: Path) -> None:
    """Torch's fast path multiplies with the float weights of `linear1`, whoever stands there."""

    def build() -> nn.Module:
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        return nn.TransformerEncoder(layer, 2).eval()

    x = torch.randn(2, 5, 16)
    with pytest.warns(UserWarning, match=r"stay in float: layers\.0\.self_attn \(MultiheadAttention\)"):
        model = qstudy.quantize(build(), {"name": "ptq", "layers": {"*": {"weight": 2}}})
    assert torch.equal(answer(model, x), answer(build(), x))
    qstudy.calibrate(model, [x])
    assert (answer(model, x) - answer(build(), x)).abs().max() > 0.01
    qstudy.pack(model).save(tmp_path / "model.qst")
    with torch.no_grad():
        torch.testing.assert_close(qstudy.load(tmp_path / "model.qst", into=build())(x), model(x))


def test_a_transformer_of_padded_batches() -> None:
    """Which torch would make nested tensors of."""
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).eval()
    x, padding = torch.randn(2, 5, 16), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.no_grad():
        expected = encoder(x, src_key_padding_mask=padding)
    with pytest.warns(UserWarning, match="stay in float"):
        model = qstudy.quantize(encoder, {"name": "ptq", "layers": {"*": {"weight": 8, "activation": 8}}})
    qstudy.calibrate(model, lambda whole: whole(x, src_key_padding_mask=padding))
    with torch.no_grad():
        found = model(x, src_key_padding_mask=padding)
    torch.testing.assert_close(found[~padding], expected[~padding], atol=0.1, rtol=0.1)


class Own(nn.Linear):
    """What only looks like a linear layer."""


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 2, 3),
        nn.GRU(2, 2),
        nn.LSTM(4, 4, proj_size=2),
        nn.Embedding(4, 4, max_norm=1.0),
        nn.Embedding(4, 4, scale_grad_by_freq=True),
        nn.Embedding(4, 4, sparse=True),
        nn.LayerNorm((2, 2)),
        Own(2, 2),
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_what_stays_in_float_is_said(layer: nn.Module, tmp_path: Path) -> None:
    model = nn.ModuleList([nn.Linear(2, 2), layer])
    kind = type(layer)
    with pytest.warns(UserWarning, match=r"stay in float: 1"):
        qstudy.quantize(model, {"name": "ptq", "layers": {"*": {"weight": 4}}})
    assert type(layer) is kind
    assert not isinstance(layer, Quantizable | DeepLSTM)
    packed = qstudy.pack(qstudy.calibrate(model, []))
    packed.save(tmp_path / "model.qst")
    fresh = copy.deepcopy(nn.ModuleList([nn.Linear(2, 2), layer]))
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    qstudy.load(tmp_path / "model.qst", into=fresh)
    assert all(torch.equal(a, b) for a, b in zip(fresh[1].parameters(), layer.parameters(), strict=True))


def test_the_accelerator_normalizes_in_fixed_point(tmp_path: Path) -> None:
    """torch's normalization has a twin as well; without a bias it is left alone, in every file as in memory."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.LayerNorm(16, bias=False), nn.Linear(16, 4))
    fresh, x = copy.deepcopy(model), torch.rand(5, 8)
    in_float = model(x)
    qstudy.quantize(model, {"name": "accelerator_aware", "layers": {"*": {"weight": 8, "activation": 8}}})
    assert type(model[1]) is LayerNorm
    assert type(model[2]) is nn.LayerNorm
    qstudy.calibrate(model, [x])
    normalized: list[Tensor] = []
    model[1].register_forward_hook(lambda layer, inputs, output: normalized.append(output))
    torch.testing.assert_close(model(x), in_float, atol=0.2, rtol=0)
    units = normalized[0] * 2**12  # 16 bits for [-8, 8)
    assert torch.equal(units, units.round())
    qstudy.pack(model).save(tmp_path / "model.qst")
    qstudy.load(tmp_path / "model.qst", into=fresh)
    assert torch.equal(fresh(x), model.eval()(x))


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    linear = {"name": "ptq", "layers": {"*": W8A8}}
    plain = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(UserError, match=r"no quantizable layer; qstudy\.quantize"):
        build_policy(linear).prepare(plain)
    with pytest.raises(UserError, match="no quantizable layer"):
        qstudy.quantize(nn.Sequential(nn.Conv2d(1, 1, 1)), linear)
    for verb in (qstudy.pack, qstudy.size_bytes, qstudy.simulate, lambda model: qstudy.calibrate(model, [])):
        with pytest.raises(UserError, match=r"Sequential has no policy; call qstudy\.quantize"):
            verb(plain)
    with pytest.raises(UserError, match="'output' matches no layer; layers are 0"):
        qstudy.quantize(plain, linear | {"layers": {"output": W8A8}})
    with pytest.raises(UserError, match="rates: the pattern 'output' matches no layer; layers are 0"):
        qstudy.quantize(plain, linear, rates={"output": 10.0})
    with pytest.raises(UserError, match=r"rates\.\*: every_ms: 0 "):
        qstudy.quantize(plain, linear, rates=0)
    model = qstudy.quantize(plain, linear)
    with pytest.raises(UserError, match=r"0 is not quantized yet; call qstudy\.calibrate"):
        qstudy.pack(model)
    with pytest.raises(UserError, match="none of them reached 0, whose activations"):
        qstudy.calibrate(model, [])
    qstudy.pack(qstudy.calibrate(model, [torch.randn(4, 3)])).save(tmp_path / "model.qst")
    with pytest.raises(UserError, match=r"model\.qst"):
        qstudy.load(tmp_path / "model.qst", into=nn.Sequential(nn.Linear(3, 4)))
    with pytest.raises(UserError, match=r"model\.qst: this is not a recognizer; qstudy\.load\(path, into=model\)"):
        qstudy.load(tmp_path / "model.qst")
    with pytest.raises(UserError, match="0 is packed, and has no float weights"):
        qstudy.quantize(qstudy.load(tmp_path / "model.qst", into=nn.Sequential(nn.Linear(3, 3))), linear)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize(
    "layer", [nn.Linear(3, 3), nn.LSTM(3, 3), nn.LayerNorm(3)], ids=lambda layer: type(layer).__name__
)
def test_weights_of_another_type_are_refused(layer: nn.Module, dtype: torch.dtype) -> None:
    kind = str(dtype).removeprefix("torch.")
    message = rf"0.*: its weights are {kind}; call model\.float\(\) first"
    policy = {"name": "ptq", "layers": {"*": W8A8}}
    with pytest.raises(UserError, match=message):
        qstudy.quantize(nn.Sequential(copy.deepcopy(layer).to(dtype)), policy)
    model = qstudy.quantize(nn.Sequential(copy.deepcopy(layer)), policy)
    with pytest.raises(UserError, match=message):
        qstudy.calibrate(model.to(dtype), [torch.randn(4, 2, 3, dtype=dtype)])


class Linear(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Linear(8, 16))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(8, 16, batch_first=True)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> Any:
        return self.lstm(x, state)


def calibrated_and_loaded(kind: type[nn.Module], policy: dict[str, Any], folder: Path) -> tuple[nn.Module, nn.Module]:
    model = qstudy.calibrate(qstudy.quantize(kind(), policy), [torch.randn(4, 9, 8)])
    qstudy.pack(model).save(folder / "model.qst")
    return model.eval(), qstudy.load(folder / "model.qst", into=kind())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", [Linear, Recurrent])
@torch.no_grad()
def test_inputs_of_another_width_are_refused(kind: type[nn.Module], policy: str, tmp_path: Path) -> None:
    for model in calibrated_and_loaded(kind, POLICIES[policy], tmp_path):
        for shape in ((1, 3, 5), (1, 8, 16), (9, 8, 6)):
            with pytest.raises((RuntimeError, ValueError)):
                model(torch.randn(shape))


@pytest.mark.parametrize("policy", POLICIES)
@torch.no_grad()
def test_states_of_another_size_are_refused(policy: str, tmp_path: Path) -> None:
    x = torch.randn(2, 3, 8)
    for model in calibrated_and_loaded(Recurrent, POLICIES[policy], tmp_path):
        for size in ((1, 2, 12), (1, 1, 16), (2, 2, 16)):
            with pytest.raises(RuntimeError, match="state"):
                model(x, (torch.zeros(size), torch.zeros(size)))


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_comes_of_nothing(policy: str, tmp_path: Path) -> None:
    """Neither of no utterance nor of no frame, of which torch's own LSTM wants one; nor does a gradient."""
    trained, loaded = calibrated_and_loaded(Recurrent, POLICIES[policy], tmp_path)
    for shape in ((0, 3, 8), (2, 0, 8))[: 1 if policy == "weights" else 2]:
        for model in (trained, loaded):
            y, (h, c) = model(torch.zeros(shape))
            assert y.shape == (*shape[:2], 16)
            assert h.shape == c.shape == (1, shape[0], 16)
        trained(torch.zeros(shape))[0].sum().backward()


@torch.no_grad()
def test_a_state_in_float64_is_the_same_state(tmp_path: Path) -> None:
    x, state = torch.randn(1, 3, 8), (torch.randn(1, 1, 16), torch.randn(1, 1, 16))
    for model in calibrated_and_loaded(Recurrent, POLICIES["native_int"], tmp_path):
        as_double = state[0].double(), state[1].double()
        assert torch.equal(model(x, as_double)[0], model(x, state)[0])


EVERY = ["native_int", "int4_e2e", "accelerator_aware", "fake_qat", "s8bqat", "ptq"]


@pytest.mark.parametrize("policy", EVERY)
def test_a_batch_of_nothing_says_nothing(policy: str) -> None:
    x = torch.randn(8, 4)
    build = {"name": policy, "layers": {"*": W8A8}}
    model, other = (nn.Sequential(nn.Linear(4, 3)) for _ in range(2))
    other.load_state_dict(model.state_dict())
    qstudy.calibrate(qstudy.quantize(model, build), [x[:0], x, x[:0]])
    qstudy.calibrate(qstudy.quantize(other, build), [x])
    assert torch.equal(model.eval()(x), other.eval()(x))
    assert model(x[:0]).shape == (0, 3)


@pytest.mark.parametrize("policy", EVERY)
def test_calibration_within_inference_mode(policy: str) -> None:
    x = torch.randn(8, 4)
    model = qstudy.quantize(nn.Sequential(nn.Linear(4, 3)), {"name": policy, "layers": {"*": W8A8}})
    with torch.inference_mode():
        there = qstudy.calibrate(model, [x]).eval()(x)
    assert torch.equal(model(x), there)
    model.train()(x).sum().backward()
    assert model[0].weight.grad.any()


def test_gptq_says_that_its_inputs_are_too_large() -> None:
    model = qstudy.quantize(
        nn.Sequential(nn.Linear(4, 3)), {"name": "ptq", "layers": {"*": {"weight": 4}}, "rounding": "gptq"}
    )
    with pytest.raises(UserError, match="gptq squares the inputs of a layer, and some are too large"):
        qstudy.calibrate(model, [1e20 * torch.randn(8, 4)])


def test_another_policy_starts_anew(tmp_path: Path) -> None:
    model = qstudy.calibrate(qstudy.quantize(everything(), POLICIES["ptq"]), map(ids, range(2)))
    few = answer(qstudy.calibrate(qstudy.quantize(everything(), POLICIES["weights"]), []), ids(0))
    qstudy.quantize(model, POLICIES["weights"])
    assert torch.equal(answer(model, ids(0)), answer(everything(), ids(0)))
    assert torch.equal(answer(qstudy.calibrate(model, []), ids(0)), few)
    qstudy.pack(qstudy.quantize(everything(), {"name": "float"})).save(tmp_path / "float.qst")
    assert torch.equal(answer(qstudy.load(tmp_path / "float.qst", into=model), ids(0)), answer(everything(), ids(0)))


RANGES = [{"activation_range": range} for range in ("ema", "row", "mse", "learned")]


@pytest.mark.parametrize("shape", [(0, 8), (2, 0, 8), (8,)])
@pytest.mark.parametrize(
    "policy",
    [
        *({"name": "native_int", "layers": {"*": {"weight": 8, "activation": 8}}, **each} for each in RANGES),
        {"name": "native_int", "layers": {"*": {"weight": 8}}},
        {"name": "fake_qat", "layers": {"*": {"weight": 8, "activation": 8}}, "activation_range": "learned"},
        {"name": "accelerator_aware", "layers": {"*": {"weight": 8, "activation": 8}}},
    ],
    ids=str,
)
def test_gradients_of_no_rows_and_of_a_single_vector(policy: dict[str, Any], shape: tuple[int, ...]) -> None:
    model = qstudy.calibrate(qstudy.quantize(nn.Sequential(nn.Linear(8, 4)), policy), [torch.randn(5, 8)]).train()
    x = torch.randn(shape, requires_grad=True)
    model(x).sum().backward()
    assert x.grad.shape == x.shape
    assert model[0].weight.grad.isfinite().all()
