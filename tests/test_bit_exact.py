"""What is trained is what is packed: accumulators of the packed model are the training forward pass's, to the bit."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from real_speech import MODEL, digits_model, real_features, recordings
from tiny import FEATURES, STATELESS, TOKENIZER, filled, model_config, packed, speech, talkative
from tiny import LSTM as LSTM_PREDICTOR
from torch import Tensor, nn

from qstudy.bits import LayerBits
from qstudy.model import RNNT, ModelConfig
from qstudy.quant.integer.accumulator import recorded_accumulators
from qstudy.quant.layers import LSTM, Linear, quantizable
from qstudy.quant.packed.bitpack import unpack
from qstudy.quant.packed.model import PackedModel, fill_packed, pack_model
from qstudy.quant.policies import QuantPolicy, build_policy
from qstudy.quant.stack import LSTMStack
from qstudy.recognize.greedy import greedy
from qstudy.recognize.recognizer import Recognizer, RecognizerStream, describe, recognizer_from_packed

UTTERANCES = 56
EIGHT: dict[str, Any] = {"weight": 8, "activation": 8}
POLICIES: dict[str, dict[str, Any]] = {
    "native_int W8A8": {"name": "native_int", "layers": {"*": EIGHT}},
    "native_int W4A8": {"name": "native_int", "layers": {"*": {"weight": 4, "activation": 8}}},
    "native_int W4A4": {"name": "native_int", "layers": {"*": {"weight": 4, "activation": 4}}},
    "native_int W3A5 per tensor": {
        "name": "native_int",
        "layers": {"*": {"weight": 3, "activation": 5, "granularity": "tensor"}},
    },
    "native_int W16A16": {"name": "native_int", "layers": {"*": {"weight": 16, "activation": 16}}},
    "native_int by row": {
        "name": "native_int",
        "layers": {"*": {"weight": 4, "activation": 8}},
        "activation_range": "row",
    },
    "native_int W16A16 by row": {
        "name": "native_int",
        "layers": {"*": {"weight": 16, "activation": 16}},
        "activation_range": "row",
    },
    "int4_e2e": {"name": "int4_e2e"},
    "int4_e2e, edges at 8": {"name": "int4_e2e", "edges": 8},
    "accelerator_aware": {"name": "accelerator_aware", "layers": {"*": EIGHT}},
}
INTEGER = [name for name in POLICIES if not name.startswith("accelerator")]
"""Those whose packed tensors are plain codes and float32 scales."""

pytestmark = pytest.mark.usefixtures("one_thread")  # small tensors
every_policy = pytest.mark.parametrize("policy", POLICIES)
Accumulators = dict[str, list[Tensor]]
"""Layer -> accumulators in the order in which they were computed; an LSTM's alternate: inputs', hidden state's."""


@contextmanager
def accumulators(model: nn.Module) -> Iterator[Accumulators]:
    """Collect every accumulator inside the `with` block, by layer."""
    found: Accumulators = defaultdict(list)
    handles, open_records = [], ExitStack()

    def begin(name: str) -> Callable[..., None]:
        return lambda *_: current.append((name, open_records.enter_context(recorded_accumulators())))

    def end(*_: Any) -> None:
        name, record = current.pop()
        found[name] += record
        open_records.close()

    current: list[tuple[str, list[Tensor]]] = []
    for name, part in recording_parts(model).items():
        handles += [part.register_forward_pre_hook(begin(name)), part.register_forward_hook(end)]
    yield found
    for handle in handles:
        handle.remove()


def recording_parts(model: nn.Module) -> dict[str, nn.Module]:
    """Quantizable layers by name, and stacks of LSTMs instead of their layers: packed ones run in one call."""
    stacks = {name: module for name, module in model.named_modules() if isinstance(module, LSTMStack)}
    single = {name: layer for name, layer in quantizable(model).items() if name.rpartition(".")[0] not in stacks}
    return {**stacks, **single}


def in_time(model: nn.Module, found: Accumulators) -> dict[str, Tensor]:
    """All accumulators by matrix (`layer.0`, `layer.1`), call after call: (rows of all calls, H)."""
    joined = {}
    for name, part in recording_parts(model).items():
        lstms = [f"{name}.{inner}" if inner else name for inner, each in part.named_modules() if isinstance(each, LSTM)]
        matrices = [f"{lstm}.{side}" for lstm in lstms for side in range(2)] or [f"{name}.0"]
        for index, matrix in enumerate(matrices):
            sums = [each.reshape(-1, each.shape[-1]) for each in found[name][index :: len(matrices)]]
            if sums:  # an embedding multiplies nothing
                joined[matrix] = torch.cat(sums)
    return joined


def mismatches(first: Accumulators, second: Accumulators) -> int:
    """How many accumulators differ; the two must have the same ones."""
    assert {name: [a.shape for a in group] for name, group in first.items()} == {
        name: [a.shape for a in group] for name, group in second.items()
    }
    pairs = [(a, b) for name in first for a, b in zip(first[name], second[name], strict=True)]
    assert pairs
    return sum(int((a.double() != b.double()).sum()) for a, b in pairs)


def loaded_from(device: PackedModel, config: ModelConfig) -> RNNT:
    fill_packed(loaded := talkative(config, seed=9), device)
    return loaded.eval()


# A small model, on real speech


def batches(features: list[Tensor], size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Padded features, lengths, targets."""
    generator = torch.Generator().manual_seed(0)
    for begin in range(0, len(features), size):
        group = features[begin : begin + size]
        lengths = torch.tensor([len(each) for each in group])
        padded = nn.utils.rnn.pad_sequence(group, batch_first=True, padding_value=-15.9)
        yield padded, lengths, torch.randint(1, TOKENIZER.size, (len(group), 7), generator=generator)


def frozen(model: RNNT) -> RNNT:
    """In training mode, but with ranges that stay as they are: what a step after `freeze_step` computes."""
    model.train()
    for module in model.modules():
        if hasattr(module, "observer_enabled"):
            module.observer_enabled = False
    return model


@torch.no_grad()
def calibrate(policy: QuantPolicy, model: nn.Module, run: nn.Module, inputs: Iterable[tuple[Tensor, ...]]) -> None:
    """Fit the quantizers of a prepared model to what `run` is given."""

    def passes() -> Iterator[None]:
        for each in inputs:
            run(*each)
            yield

    policy.calibrate(model.train(), passes())
    policy.project_(model.eval(), 0)


def compared(model: RNNT, loaded: RNNT, features: list[Tensor], size: int = 8) -> int:
    """Accumulators of the training forward pass, with gradients, that the packed model does not reproduce.

    Logits and hypotheses are compared on the way.
    """
    wrong = 0
    for batch in batches(features, size):
        with accumulators(model) as trained:
            logits, lengths, encoded = frozen(model)(*batch)
        with accumulators(loaded) as packed_ones, torch.no_grad():
            again = loaded(*batch)
        assert logits.requires_grad
        assert torch.equal(again[0], logits)
        wrong += mismatches(trained, packed_ones)
        first, second = (greedy(each, encoded.detach(), lengths).hypotheses for each in (model, loaded))
        assert first == second
        assert len(set(map(tuple, first))) > len(first) // 2
    return wrong


@pytest.mark.parametrize(
    ("policy", "predictor"),
    [*((name, LSTM_PREDICTOR) for name in POLICIES), ("native_int W8A8", STATELESS), ("int4_e2e", STATELESS)],
    ids=lambda value: value if isinstance(value, str) else value["name"],
)
def test_real_utterances(policy: str, predictor: dict[str, Any]) -> None:
    config = model_config(predictor)
    model = talkative(config)
    device = packed(model, filled(model, POLICIES[policy]), config)
    features = real_features(FEATURES, UTTERANCES)
    assert compared(model, loaded_from(device, config), features, UTTERANCES // 2) == 0


@every_policy
def test_after_training(policy: str) -> None:
    """A few steps, in which weights, ranges and clips move, and then the same again; under bfloat16 autocast too."""
    config = model_config()
    model = talkative(config)
    filled_policy = filled(model, POLICIES[policy])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    features = real_features(FEATURES, 12)
    for step, batch in enumerate(batches(features, 4), 1):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.train()(*batch)[0].float().square().mean() + filled_policy.penalty(model, step)
        loss.backward()
        optimizer.step()
        filled_policy.project_(model, step)
    loaded = loaded_from(packed(model, filled_policy, config), config)
    assert compared(model, loaded, features) == 0
    with torch.autocast("cpu", torch.bfloat16):
        batch = next(batches(features, 4))
        logits = frozen(model)(*batch)[0]
    with torch.no_grad():
        assert torch.equal(loaded(*batch)[0], logits)


@every_policy
def test_streaming(policy: str) -> None:
    """A packed model that hears pieces computes what the training model computes over the whole utterance."""
    config = model_config(running_mean=30)
    model = talkative(config)
    loaded = loaded_from(packed(model, filled(model, POLICIES[policy]), config), config)
    generator = np.random.default_rng(0)
    for wave in recordings(3):
        with accumulators(model) as trained:
            text = Recognizer(model, FEATURES, TOKENIZER).transcribe(wave)
        edges = np.sort(generator.integers(0, len(wave), 12))
        stream = RecognizerStream(Recognizer(loaded, FEATURES, TOKENIZER))
        with recorded_accumulators(), accumulators(loaded) as streamed:  # unseen, it would compute in one call
            for begin, end in itertools.pairwise([0, *edges.tolist(), len(wave)]):
                stream.accept(wave[begin:end])
            assert stream.finish() == text
        first, second = in_time(model, trained), in_time(loaded, streamed)
        assert first.keys() == second.keys()
        for name, whole in first.items():
            assert torch.equal(whole, second[name]), name


@pytest.mark.parametrize("policy", INTEGER)
def test_accumulators_are_numpys(policy: str) -> None:
    """Plain NumPy, from the packed file's integers and what went through the layers: int64 sums of products."""
    config = model_config()
    model = talkative(config)
    device = packed(model, filled(model, POLICIES[policy]), config)
    flows: dict[str, tuple[Tensor, ...]] = {}

    def remember(name: str) -> Callable[..., None]:
        def hook(_: Any, inputs: tuple[Any, ...], output: Any) -> None:
            flows[name] = (inputs[0], output[0] if isinstance(output, tuple) else output)

        return hook

    for name, layer in quantizable(model).items():
        layer.register_forward_hook(remember(name))
    with accumulators(model) as found, torch.no_grad():
        model(speech(), torch.full((3,), 80), torch.ones(3, 5, dtype=torch.int64))
    shapes = {shape.name: shape for shape in device.shapes}
    for matrix, sums in in_time(model, found).items():
        name, _, index = matrix.rpartition(".")
        x, y = (part.numpy() for part in flows[name])
        if shapes[name].kind == "lstm":
            before = np.concatenate([0 * y[:, :1], y[:, :-1]], 1)
            x = (before if index == "1" else x).swapaxes(0, 1)
        if policy.endswith("by row") and index == "0":
            x = x / np.abs(x).max(-1, keepdims=True)
        size = shapes[name].matrices[int(index)]
        expected = by_numpy(x, device, f"{name}.", int(index), size, device.bit_map[name])
        assert np.array_equal(sums.numpy().astype(np.int64), expected.reshape(-1, size[0])), matrix


def by_numpy(
    x: np.ndarray, device: PackedModel, prefix: str, index: int, size: tuple[int, int], bits: LayerBits
) -> np.ndarray:
    """Accumulators (..., rows) int64 of x (..., columns) float32 and one matrix of the packed file."""
    step, zero = device.tensors[f"{prefix}activation"][index].numpy()
    assert zero == 0
    high = 2 ** (bits.activation - 1) - 1
    codes = np.clip(np.rint(x / step), -high, high).astype(np.int64)
    weight = unpack(device.tensors[f"{prefix}{index}.codes"], bits.weight, size).numpy().astype(np.int64)
    result: np.ndarray = codes @ weight.T
    return result


# The digits model, with trained weights


@pytest.mark.parametrize("policy", ["native_int W4A8", "int4_e2e"])
def test_the_digits_model(policy: str) -> None:
    if not MODEL.exists():
        pytest.skip("the repository holds no digits model")
    model, config, original = digits_model()
    features = real_features(original.features, UTTERANCES)
    built = build_policy(POLICIES[policy])
    built.prepare(model)
    calibrate(built, model, model, batches(features[:8], 4))
    header = describe(config, original.features, original.tokenizer, POLICIES[policy])
    loaded = recognizer_from_packed(pack_model(model, built.bit_map(model.shapes()), model.shapes(), header))
    torch.set_num_threads(2)  # packed on one, compared on two; the fixture sets it back
    assert compared(model, loaded.model, features, UTTERANCES // 2) == 0


# Weights that no training would find

SIZE = st.integers(1, 21)
KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "gaussian": lambda weight: weight,
    "zeros": torch.zeros_like,
    "some rows of zeros": lambda weight: weight * (torch.arange(len(weight)) % 2)[:, None],
    "one size": lambda weight: weight.sign(),
    "one outlier": lambda weight: weight + 1e4 * torch.eye(*weight.shape),
    "rows of different sizes": lambda weight: weight * 10.0 ** (torch.arange(len(weight)) % 9 - 4)[:, None],
}
SINGLE = {
    "native_int W8A8": POLICIES["native_int W8A8"],
    "native_int W4A4": POLICIES["native_int W4A4"],
    "native_int by row": POLICIES["native_int by row"],
    "native_int W2A3": {"name": "native_int", "layers": {"*": {"weight": 2, "activation": 3}}},
    "native_int W16A8": {"name": "native_int", "layers": {"*": {"weight": 16, "activation": 8}}},
    "int4_e2e": POLICIES["int4_e2e"],
    "accelerator_aware": POLICIES["accelerator_aware"],
}


def alone(layer: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict({"layer": layer})


@settings(max_examples=40)
@given(
    st.sampled_from(list(SINGLE)),
    st.booleans(),
    st.sampled_from(list(KINDS)),
    st.floats(-20, 20),
    st.sampled_from([0.01, 1.0, 300.0]),
    st.tuples(SIZE, SIZE, st.integers(1, 3), st.integers(1, 5)),
    st.integers(0, 999),
)
def test_any_weights(
    policy: str, lstm: bool, kind: str, power: float, loud: float, sizes: tuple[int, int, int, int], seed: int
) -> None:
    """Sizes from 1e-20 to 1e20, zeros, inputs far beyond what calibration saw, odd shapes; several threads' worth."""
    inputs, outputs, batch, frames = sizes
    torch.manual_seed(seed)

    def build() -> Any:
        return LSTM(inputs, outputs) if lstm else Linear(inputs, outputs)

    model = alone(build())
    layer = model["layer"]
    with torch.no_grad():
        for matrix in layer.matrices():
            matrix.copy_(KINDS[kind](matrix) * 10**power)
    built = build_policy(SINGLE[policy])
    built.prepare(model)
    x = torch.randn(batch, frames, inputs)
    calibrate(built, model, layer, [(x,)])
    shapes = [layer.shape("layer")]
    device = pack_model(model, built.bit_map(shapes), shapes, {})
    fill_packed(loaded := alone(build()), device)
    x = loud * x
    with accumulators(model) as trained:
        y = layer(x)
    with accumulators(loaded) as packed_ones, torch.no_grad():
        z = loaded["layer"](x)
    assert mismatches(trained, packed_ones) == 0
    first, second = (y[0], z[0]) if lstm else (y, z)
    assert torch.equal(first.nan_to_num(7.0), second.nan_to_num(7.0))
    if policy not in ("accelerator_aware",):
        sums = trained["layer"][0].numpy().astype(np.int64)
        ordered = x.numpy().swapaxes(0, 1) if lstm else x.numpy()
        if policy.endswith("by row"):
            ordered = ordered / np.abs(ordered).max(-1, keepdims=True)
        bits = built.bit_map(shapes)["layer"]
        assert np.array_equal(sums, by_numpy(ordered, device, "layer.", 0, shapes[0].matrices[0], bits))
