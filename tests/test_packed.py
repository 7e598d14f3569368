"""The packed model computes what the training model does, in the predicted bytes; damage is named."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import LSTM, STATELESS, filled, model_config, packed, speech, talkative
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from qstudy.bits import BitMap
from qstudy.errors import UserError
from qstudy.hardware.size import layer_bytes, size_bytes
from qstudy.model import RNNT
from qstudy.quant.arithmetics.fake import FakeArithmetic, QuantizedArithmetic
from qstudy.quant.integer.matmul import integer_matmul
from qstudy.quant.layers import quantizable
from qstudy.quant.packed.model import PackedModel, fill_float, fill_packed, pack_model
from qstudy.quant.packed.scaled import PackedFake
from qstudy.quant.quantizers import UniformActivations
from qstudy.recognize.greedy import greedy
from qstudy.recognize.recognizer import recognizer_from_packed
from qstudy.training.load import load_recognizer

WEIGHTS = [2, 3, 4, 5, 6, 7, 8, 16]
NAMES = list(quantizable(talkative()))
BITS = st.fixed_dictionaries(
    {
        "weight": st.sampled_from([*WEIGHTS, 32]),
        "activation": st.sampled_from([2, 4, 8, 16, 32]),
        "granularity": st.sampled_from(["channel", "tensor"]),
    }
)
MAPS = st.fixed_dictionaries(dict.fromkeys(NAMES, BITS))


def both(
    layers: dict[str, Any], predictor: dict[str, Any] | None = None, **options: Any
) -> tuple[RNNT, RNNT, PackedModel]:
    """The training model, the packed model that runs, and what it was filled from."""
    config = model_config(predictor)
    model = talkative(config)
    policy = filled(model, {"name": "ptq", "layers": layers, **options})
    device = packed(model, policy, config)
    loaded = talkative(config, seed=9)
    fill_packed(loaded, device)
    return model, loaded.eval(), device


@torch.no_grad()
def logits(model: RNNT) -> Tensor:
    result: Tensor = model(speech(), torch.tensor([80, 71, 66]), torch.tensor([[3, 1, 4, 1]] * 3))[0]
    return result


@torch.no_grad()
def hypotheses(model: RNNT) -> list[list[int]]:
    encoded, lengths, _ = model.encoder(speech(), torch.tensor([80, 71, 66]))
    return greedy(model, encoded, lengths).hypotheses


# What it computes


@pytest.mark.parametrize("predictor", [LSTM, STATELESS], ids=["lstm", "stateless"])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
def test_weights_alone(bits: int, granularity: str, predictor: dict[str, Any]) -> None:
    model, loaded, _ = both({"*": {"weight": bits, "granularity": granularity}}, predictor)
    scale = float(logits(model).abs().max())
    assert float((logits(model) - logits(loaded)).abs().max()) < 1e-4 * max(scale, 1)
    assert hypotheses(model) == hypotheses(loaded)
    assert any(hypotheses(model))


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("activation", [4, 8, 16])
@pytest.mark.parametrize("weight", [4, 8, 16, 32])
def test_weights_and_activations(weight: int, activation: int, symmetric: bool) -> None:
    """Where integers meet, sums are in another order: a tie may fall to the other side, seldom."""
    model, loaded, _ = both({"*": {"weight": weight, "activation": activation}}, symmetric=symmetric)
    first, second = logits(model), logits(loaded)
    difference = (first - second).abs()
    assert float(difference.median()) < 1e-3 * float(first.abs().max())
    assert float(difference.mean()) < 0.01 * float(first.abs().mean())
    assert any(hypotheses(model))


def test_eight_bits_give_the_same_hypotheses() -> None:
    model, loaded, _ = both({"*": {"weight": 8, "activation": 8}})
    assert hypotheses(model) == hypotheses(loaded)
    assert any(hypotheses(model))


@pytest.mark.parametrize("low", [-1.0, -2.0, -0.01, 0.5])
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
def test_a_linear_layer_at_the_ends_of_its_quantizer(low: float, symmetric: bool) -> None:
    """Beyond what calibration saw, values clip to the same level on both sides, the least one included."""
    model, loaded, _ = both({"joiner.output": {"weight": 8, "activation": 4}}, symmetric=symmetric)
    x = torch.linspace(-3, 3, 50)[:, None] * torch.ones(12)
    quantizer = model.joiner.output.arithmetic.inputs  # type: ignore[union-attr]
    quantizer.seen.fill_(False)
    quantizer.observe(torch.tensor([low, 7 / 8]))
    device = packed(model, filled_like(model), None)
    fill_packed(loaded := talkative(seed=4), device)
    torch.testing.assert_close(model.joiner.output(x), loaded.joiner.output(x), atol=1e-4, rtol=1e-4)


def filled_like(model: RNNT) -> Any:
    """The policy of the test above, without touching the model's quantizers."""
    from qstudy.quant.policies import build_policy

    return build_policy({"name": "ptq", "layers": {"joiner.output": {"weight": 8, "activation": 4}}})


def test_float_is_exact() -> None:
    model, loaded, _ = both({})
    torch.testing.assert_close(logits(model), logits(loaded), atol=1e-5, rtol=0)  # two biases became one


@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 20), st.booleans(), st.booleans(), st.integers(0, 999))
def test_integer_products_are_exact(rows: int, columns: int, inner: int, wide_x: bool, wide_w: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def integers(shape: tuple[int, int], wide: bool) -> Tensor:
        high = 2**15 if wide else 2**7
        return torch.randint(-high, high, shape, generator=generator).to(torch.int16 if wide else torch.int8)

    x, w = integers((rows, inner), wide_x), integers((columns, inner), wide_w)
    assert torch.equal(integer_matmul(x[:1].expand(9, inner), w), integer_matmul(x[:1].repeat(9, 1), w))
    assert torch.equal(integer_matmul(x, w).long(), x.long() @ w.long().t())


def tensors_of(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """Every tensor and array that can be reached from an object through attributes, lists and mappings."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, np.ndarray):
        yield torch.from_numpy(value)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from tensors_of(inner, seen)
    elif isinstance(value, list | tuple | set):
        for inner in value:
            yield from tensors_of(inner, seen)
    elif isinstance(value, nn.Module) or hasattr(value, "__dict__"):
        yield from tensors_of(vars(value), seen)


class Made(TorchDispatchMode):
    """Collects every tensor that torch makes."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[tuple[torch.Size, torch.dtype]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, lambda made: self.tensors.append((made.shape, made.dtype)), result)
        return result


@pytest.mark.parametrize("activation", [8, 32])
@pytest.mark.parametrize("policy", ["ptq", "s8bqat"])
def test_no_float_copy_of_a_quantized_weight(policy: str, activation: int) -> None:
    """Neither kept, nor made for a moment."""
    config = model_config()
    model = talkative(config)
    filler = filled(model, {"name": policy, "layers": {"*": {"weight": 4, "activation": activation}}})
    fill_packed(loaded := talkative(config, seed=9), packed(model, filler, config))
    with Made() as made:
        assert any(hypotheses(loaded))
    matrices = {tuple(size) for shape in talkative().shapes() for size in shape.matrices}
    either = matrices | {(columns, rows) for rows, columns in matrices}
    assert not [shape for shape, dtype in made.tensors if dtype.is_floating_point and tuple(shape) in either]
    sizes = {rows * columns for rows, columns in matrices}
    held = list(tensors_of(loaded, set()))
    assert not [tensor.shape for tensor in held if tensor.is_floating_point() and tensor.numel() in sizes]
    packed_bytes = {tensor.numel() for tensor in held if tensor.dtype in (torch.int8, torch.uint8)}
    assert max(packed_bytes) >= max(sizes)  # the walk does see the integers


# Bytes


@settings(max_examples=40)
@given(MAPS)
def test_bytes_are_what_was_predicted(layers: dict[str, Any]) -> None:
    model, _, device = both(layers)
    shapes, bit_map = model.shapes(), device.bit_map
    assert device.size_bytes == size_bytes(shapes, bit_map)
    assert device.shapes == shapes
    for shape in shapes:
        if shape.matrices:
            own = sum(t.nbytes for name, t in device.tensors.items() if name.startswith(f"{shape.name}."))
            assert own == layer_bytes(shape, bit_map[shape.name])


@pytest.mark.parametrize("predictor", [LSTM, STATELESS], ids=["lstm", "stateless"])
def test_the_file_is_header_and_tensors(tmp_path: Path, predictor: dict[str, Any]) -> None:
    layers = {"*": {"weight": 3, "activation": 8}, "joiner.*": {"weight": 16, "granularity": "tensor"}}
    model, _, device = both(layers, predictor)
    path = tmp_path / "model.qst"
    device.save(path)
    header = struct.unpack("<Q", path.read_bytes()[:8])[0]
    assert path.stat().st_size - 8 - header == device.size_bytes == size_bytes(model.shapes(), device.bit_map)


def test_bit_map_survives(tmp_path: Path) -> None:
    layers = {"*": {"weight": 5}, "joiner.*": {"weight": 8, "activation": 16, "granularity": "tensor"}}
    model, loaded, device = both(layers)
    device.save(tmp_path / "model.qst")
    again = PackedModel.load(tmp_path / "model.qst")
    expected: BitMap = device.bit_map
    assert again.bit_map == expected
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in device.tensors.items())
    fill_packed(fresh := talkative(seed=5), again)
    assert torch.equal(logits(fresh), logits(loaded))
    assert hypotheses(fresh) == hypotheses(model)


# Damage


@pytest.fixture
def qst(tmp_path: Path) -> Path:
    path = tmp_path / "model.qst"
    both({"*": {"weight": 4}})[2].save(path)
    return path


def foreign(path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.ones(3)}, path)


def rewritten(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change our header and leave the tensors as they are."""

    def damage(path: Path) -> None:
        with safetensors.safe_open(str(path), "pt") as file:
            header = json.loads(file.metadata()["qstudy"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        changed = change(header)
        safetensors.torch.save_file(tensors, path, {"qstudy": json.dumps(header if changed is None else changed)})

    return damage


def flipped(where: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(where * len(content))] ^= 0x10
        path.write_bytes(content)

    return damage


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("This is no model, but it is long enough to be one.\n"),
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "cut in the tensors": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "one byte short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "another program's": foreign,
    "bit flip in the header": flipped(0.3),
    "bit flip in the tensors": flipped(0.9),
    "newer format": rewritten(lambda header: header.update(format=99)),
    "other widths": rewritten(lambda header: header["bit_map"]["joiner.output"].update(weight=8)),
    "other alphabet": rewritten(lambda header: header["tokenizer"].update(alphabet="abc")),
    "no bit map": rewritten(lambda header: header.pop("bit_map") and None),
    "not a mapping": rewritten(lambda header: [1, 2]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_named(qst: Path, damage: str) -> None:
    DAMAGE[damage](qst)
    with pytest.raises(UserError) as error:
        load_recognizer(qst)
    assert str(qst) in str(error.value)


def test_code_named_in_a_model_file_is_not_run(tmp_path: Path) -> None:
    device = both({"*": {"weight": 4}})[2]
    device.header["model"]["encoder"]["name"] = "os.system"
    device.save(tmp_path / "model.qst")
    with pytest.raises(UserError, match=r"os\.system"):
        load_recognizer(tmp_path / "model.qst")


@pytest.mark.parametrize(
    "policy",
    [
        {"name": "ptq", "layers": {"*": {"weight": 16}}},
        {"name": "ptq", "layers": {"*": {"weight": 5, "activation": 8}}},
        {"name": "ptq", "layers": {"*": {"weight": 4, "activation": 8, "granularity": "group", "group": 5}}},
        {"name": "fake_qat", "layers": {"*": {"activation": 8}}},
        {"name": "fake_qat", "layers": {"*": {"weight": 8, "activation": 16}}},
        {"name": "native_int", "layers": {"*": {"weight": 8, "activation": 8}}},
        {"name": "s8bqat", "layers": {"*": {"weight": 4, "activation": 8}}},
        {"name": "accelerator_aware", "layers": {"*": {"weight": 8, "activation": 8}}},
        {"name": "int4_e2e", "layers": {"*": {"weight": 4, "activation": 4}}},
    ],
    ids=lambda policy: f"{policy['name']} {policy['layers']['*']}",
)
def test_a_packed_model_becomes_float_again(policy: dict[str, Any]) -> None:
    """Its weights are those that training rounded by their quantizers."""
    network = talkative()
    stored = packed(network, filled(network, policy))
    again = talkative(seed=9)
    fill_float(again, recognizer_from_packed(stored).model)
    assert torch.equal(again.encoder.normalize.mean, network.encoder.normalize.mean)
    floats = quantizable(again)
    for name, layer in quantizable(network).items():
        assert isinstance(layer.arithmetic, QuantizedArithmetic)
        for quantizer, matrix, found in zip(
            layer.arithmetic.weights, layer.matrices(), floats[name].matrices(), strict=True
        ):
            torch.testing.assert_close(found, quantizer(matrix), rtol=1e-6, atol=0)
        bias, found_bias = layer.bias_vector(), floats[name].bias_vector()
        assert bias is found_bias is None or torch.equal(bias, found_bias)


def test_what_cannot_be_imported_is_not_packed() -> None:
    """A file that named it could never be loaded again."""

    class PackedHere(PackedFake):
        pass

    class Here(FakeArithmetic):
        packed = PackedHere

    model = talkative()
    policy = filled(model, {"name": "ptq", "layers": {"joiner.output": {"activation": 8}}})
    quantizable(model)["joiner.output"].arithmetic = Here([None], UniformActivations(8))
    with pytest.raises(UserError, match=r"joiner\.output: its packed arithmetic .*PackedHere cannot be imported"):
        packed(model, policy)


def test_a_packed_model_is_not_packed_again() -> None:
    _, loaded, device = both({"*": {"weight": 4}})
    with pytest.raises(UserError, match=r"encoder\.lstm\.0 is packed already"):
        pack_model(loaded, device.bit_map, device.shapes, {})
