"""A table tied to the joiner's output layer: one matrix that is looked up and multiplied, stored and counted once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parts import CLOSE, EXACT, batch, model_and_packed, model_of, require_same_integers, train
from safetensors.torch import load_file
from tiny import FEATURES, TOKENIZER, run_config
from torch import nn
from torch.nn import functional as F

import qstudy
from qstudy.bits import LayerShape, resolve
from qstudy.errors import UserError
from qstudy.hardware.accelerator import Memory
from qstudy.hardware.memory import traffic, weight_bytes
from qstudy.hardware.size import size_bytes
from qstudy.hardware.stream import REFERENCE, runs_per_second
from qstudy.hardware.table import Columns, widths
from qstudy.hardware.workload import layer_operators, workload
from qstudy.model import RNNT, Joiner, ModelConfig
from qstudy.model.predictors import PREDICTORS
from qstudy.presets import load_preset
from qstudy.quant.layers import Rate, TiedEmbedding, quantizable
from qstudy.quant.packed.model import PackedModel, fill_float
from qstudy.quant.policies import build_policy
from qstudy.recognize.recognizer import recognizer_from_packed
from qstudy.training.checkpoint import pack_checkpoint
from qstudy.training.run import run

pytestmark = pytest.mark.usefixtures("one_thread")  # small tensors
every_predictor = pytest.mark.parametrize("predictor", PREDICTORS)


def config(predictor: str = "weighted", joiner: str = "additive", hidden: int = 12, tied: bool = True) -> ModelConfig:
    encoder = {"name": "lstm", "hidden": 16, "layers": 2, "stack": 2, "reduction": 2}
    options = {"name": predictor, "hidden": 16, "embedding": 12, "tied": tied}
    return ModelConfig(encoder, options, {"name": joiner, "hidden": hidden})


# The layer


def test_it_is_a_table_and_a_map() -> None:
    layer, ids, x = TiedEmbedding(7, 4), torch.tensor([[0, 6, 3]]), torch.randn(2, 3, 4)
    nn.init.normal_(layer.bias)
    assert torch.equal(layer(ids), F.embedding(ids, layer.weight) * 2.0)  # the square root of 4
    assert torch.equal(layer.scores(x), F.linear(x, layer.weight, layer.bias))


def test_both_uses_teach_the_one_matrix() -> None:
    layer, x = TiedEmbedding(5, 3), torch.randn(4, 3)
    (looked_up,) = torch.autograd.grad(layer(torch.tensor([1])).sum(), layer.weight)
    (scored,) = torch.autograd.grad(layer.scores(x).sum(), layer.weight)
    (layer(torch.tensor([1])).sum() + layer.scores(x).sum()).backward()
    torch.testing.assert_close(layer.weight.grad, looked_up + scored)
    assert looked_up[0].abs().sum() == 0 < looked_up[1].abs().sum()


def test_its_shape_and_its_price() -> None:
    layer = TiedEmbedding(7, 4, lookups=3)
    layer.rate = Rate(every_ms=40.0, per_label=1)
    shape = layer.shape("t")
    assert (shape.kind, shape.matrices, shape.vectors, shape.activations) == ("tied", ((7, 4),), 7, 1)
    row, scores = layer_operators(shape)
    assert (row.macs, scores.macs) == (0, 28)
    assert (scores.inputs, scores.outputs, scores.constants) == (4, 7, 7)
    assert (scores.every_ms, scores.per_label) == (40.0, 1)
    assert (row.every_ms, row.per_label) == (None, 3)


def test_it_takes_its_place_on_chip_once() -> None:
    """Beside its own table there is room for another layer's weights, which is used less often."""
    table = LayerShape("table", "tied", ((64, 100),), 64, 1, every_ms=40.0, per_label=1.0, lookups=5)
    other = LayerShape("other", "linear", ((60, 100),), 0, 1, every_ms=80.0)
    operators = workload([table, other], {}).operators
    bits = widths(operators, [resolve({"*": {"weight": 8, "activation": 8}}, [table, other])])
    rates = runs_per_second(operators, REFERENCE)
    inputs_and_outputs = 164

    def dram(sram_bytes: float) -> list[float]:
        memory = Memory(sram_kib=sram_bytes / 1024, dram_gb_per_s=1, sram_gb_per_s=1)
        return traffic(Columns(operators), bits, memory, rates).dram_bytes[0].tolist()

    stored = weight_bytes(Columns(operators), bits)[0]
    both = inputs_and_outputs + stored[1:].sum()
    assert dram(both) == [0, 0, 0]
    assert dram(both - 10) == [0, 0, 10]
    row, scores, last = dram(inputs_and_outputs + stored[1] / 4)
    assert (row, scores, last) == (0.75 * stored[0] / 64, 0.75 * stored[1], stored[2])


def test_the_preset_looks_up_the_last_five_labels() -> None:
    with torch.device("meta"):
        model = RNNT(ModelConfig(**load_preset("conformer-s").parts), FEATURES, TOKENIZER.size)
    operators = {part.name: part for shape in model.shapes() for part in layer_operators(shape)}
    row, scores = (operators[f"predictor.embedding/{part}"] for part in ("row", "scores"))
    assert (row.every_ms, row.per_label) == (None, 5)
    assert (scores.every_ms, scores.per_label) == (model.encoder.output_ms, 1)


def test_files_from_before_look_ups_were_counted_are_read(tmp_path: Path) -> None:
    *_, packed = model_and_packed(config(), {"name": "float"})
    for shape in packed.header["shapes"]:
        del shape["lookups"]
    packed.save(tmp_path / "old.qst")
    old = PackedModel.load(tmp_path / "old.qst")
    assert old.shapes != packed.shapes
    recognizer_from_packed(old)


def test_what_belongs_to_other_kinds_of_layers_is_refused() -> None:
    with pytest.raises(UserError, match="e: lookups: they are of tied tables"):
        LayerShape("e", "embedding", ((7, 4),), lookups=1)
    with pytest.raises(UserError, match="e: then: 'silu' follows linear layers"):
        LayerShape("e", "embedding", ((7, 4),), then="silu")


def test_set_float_is_the_inverse() -> None:
    layer, other = TiedEmbedding(7, 4), TiedEmbedding(7, 4)
    nn.init.normal_(layer.bias)
    other.set_float([each.detach() for each in layer.matrices()], layer.bias_vector())
    assert all(torch.equal(value, layer.state_dict()[name]) for name, value in other.state_dict().items())


class Alone(nn.Module):
    """Looks labels up and scores them."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.layer = TiedEmbedding(count, size)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.layer.scores(torch.tanh(self.layer(ids)))


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("policy", ["native_int", "accelerator_aware", "s8bqat", "fake_qat"])
@given(count=st.integers(1, 90), size=st.integers(1, 20), weight=st.sampled_from([2, 3, 4, 5, 8]))
@torch.no_grad()
def test_packed_rows_are_those_of_training(
    policy: str, granularity: str, count: int, size: int, weight: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """To the bit, under every policy, in any number of blocks; of integer arithmetics the scores, too."""
    torch.manual_seed(count)
    widths = {"weight": weight, "activation": 8, "granularity": granularity}
    model, ids = Alone(count, size), torch.randint(count, (2, 5))
    qstudy.calibrate(qstudy.quantize(model, {"name": policy, "layers": {"*": widths}}), [ids])
    path = tmp_path_factory.getbasetemp() / "model.qst"
    qstudy.pack(model).save(path)
    loaded = qstudy.load(path, into=Alone(count, size))
    assert torch.equal(loaded.layer(ids), model.eval().layer(ids))
    assert loaded.layer(ids[:0]).shape == (0, 5, size)
    exact = policy in ("native_int", "accelerator_aware")
    within = {"rtol": 0.0, "atol": 0.0} if exact else {}
    torch.testing.assert_close(loaded(ids), model(ids), **within)


# In a model


@every_predictor
def test_it_is_there_once(predictor: str) -> None:
    model, apart = model_of(config(predictor)), model_of(config(predictor, tied=False))
    assert "predictor.embedding" in quantizable(model)
    assert not [name for name in (*quantizable(model), *model.state_dict()) if name.startswith("joiner.output")]
    saved = 12 * TOKENIZER.size  # one matrix less, and the same biases
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == sum(parameter.numel() for parameter in apart.parameters()) - saved
    bits: dict[str, int] = {}
    for name, each in (("tied", model), ("apart", apart)):
        bits[name] = size_bytes(each.shapes(), build_policy({"name": "float"}).bit_map(each.shapes()))
    assert bits["apart"] - bits["tied"] == 4 * saved


@every_predictor
def test_logits_are_products_with_the_table(predictor: str) -> None:
    model, given = model_of(config(predictor)), batch()
    logits, _, encoded = model(*given)
    common = model.joiner.encoder(encoded[1, 2]) + model.joiner.predictor(model.predictor(given[2])[1, 3])
    table = model.predictor.embedding
    torch.testing.assert_close(logits[1, 2, 3], F.linear(torch.tanh(common), table.weight, table.bias))


@pytest.mark.parametrize("policy", EXACT)
@every_predictor
def test_packed_integers_are_those_of_training(predictor: str, policy: str) -> None:
    model, loaded, _ = model_and_packed(config(predictor), EXACT[policy])
    assert require_same_integers(model, loaded, batch()) >= 8
    assert loaded.predictor.embedding.weight is None


@pytest.mark.parametrize("policy", CLOSE)
@torch.no_grad()
def test_packed_is_close_elsewhere(policy: str) -> None:
    model, loaded, _ = model_and_packed(config("lstm", "multiplicative"), CLOSE[policy])
    first, second = (each(*batch())[0] for each in (model, loaded))
    assert float((first - second).abs().mean()) < 0.01 * float(first.abs().mean())


@pytest.mark.parametrize("policy", [*EXACT, *CLOSE])
def test_the_file_holds_it_once_and_is_as_large_as_predicted(policy: str, tmp_path: Path) -> None:
    chosen = {**EXACT, **CLOSE}[policy]
    model, _, device = model_and_packed(config(), chosen)
    device.save(tmp_path / "model.qst")
    tensors = load_file(tmp_path / "model.qst")
    assert sum(tensor.nbytes for tensor in tensors.values()) == size_bytes(
        model.shapes(), build_policy(chosen).bit_map(model.shapes())
    )
    assert not [name for name in tensors if name.startswith("joiner.output")]
    again = recognizer_from_packed(PackedModel.load(tmp_path / "model.qst")).model
    assert torch.equal(again(*batch())[0], recognizer_from_packed(device).model(*batch())[0])


def test_integers_become_floats_again() -> None:
    model, loaded, _ = model_and_packed(config(), EXACT["native_int W4A8"])
    fill_float(fresh := model_of(config(), seed=5), loaded)
    quantizer: Any = model.predictor.embedding.arithmetic
    expected = quantizer.weights[0](model.predictor.embedding.weight)
    assert torch.equal(fresh.predictor.embedding.weight, expected)
    assert torch.equal(fresh.predictor.embedding.bias, model.predictor.embedding.bias)


def test_it_is_the_last_layer_where_edges_have_more_bits() -> None:
    model = model_of(config())
    bits = build_policy({"name": "int4_e2e", "edges": 8}).bit_map(model.shapes())
    assert [name for name, each in bits.items() if each.weight == 8] == ["encoder.lstm.0", "predictor.embedding"]


@pytest.mark.parametrize("joiner", ["additive", "multiplicative"])
def test_sizes_that_differ_are_one_sentence(joiner: str) -> None:
    with pytest.raises(UserError) as error, torch.device("meta"):
        model_of(config(joiner=joiner, hidden=11))
    said = str(error.value)
    assert "joiner.hidden (11)" in said
    assert "predictor.embedding (12)" in said


class WithoutOutput(Joiner):
    """A user's own, that scores by adding."""

    def __init__(self, encoder: int, predictor: int, labels: int, frame_ms: float) -> None:
        super().__init__()
        self.encoder, self.predictor = nn.Linear(encoder, labels), nn.Linear(predictor, labels)

    def join(self, encoded: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        return encoded + predicted


def test_a_joiner_that_ties_nothing_says_so() -> None:
    parts = config()
    own = ModelConfig(parts.encoder, parts.predictor, {"name": "test_tied.WithoutOutput"})
    with pytest.raises(UserError, match=r"model\.predictor\.tied: WithoutOutput"):
        model_of(own)


def test_the_loss_falls() -> None:
    first, last = train(model_of(config()), 30)
    assert last < 0.5 * first


def test_gradients_are_nearly_the_float_models() -> None:
    """With so many bits that rounding does not matter, the matrix learns from both of its uses as in float."""
    model, twin, given = model_of(config()), model_of(config()), batch()
    policy = build_policy({"name": "native_int", "layers": {"*": {"weight": 16, "activation": 16}}})
    policy.prepare(model)
    policy.calibrate(model.train(), (model(*given) for _ in range(1)))
    for each in (model, twin):
        each.train()(*given)[0].square().mean().backward()
    found, expected = (each.predictor.embedding.weight.grad for each in (model, twin))
    assert found is not None
    assert expected is not None
    assert (found - expected).norm() < 0.05 * expected.norm()


def test_a_run_from_training_to_the_packed_file(corpus: Path, tmp_path: Path) -> None:
    """Checkpoint, baseline, fine-tune, packed file: nothing on the way wants the matrix twice."""
    parts: dict[str, Any] = {
        "predictor": {"name": "weighted", "hidden": 16, "embedding": 16, "tied": True},
        "joiner": {"name": "multiplicative", "hidden": 16},
    }
    policy = {"name": "native_int", "layers": {"*": {"weight": 4, "activation": 8}}}
    record = run(run_config(corpus, tmp_path, model=parts, policy=policy), tmp_path / "run", name="tied")
    device = PackedModel.load(tmp_path / "run" / "model.qst")
    assert device.size_bytes == record.size_bytes
    again = pack_checkpoint(tmp_path / "run" / "last.ckpt")
    assert again.tensors.keys() == device.tensors.keys()
    assert all(torch.equal(tensor, device.tensors[name]) for name, tensor in again.tensors.items())
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]
    assert [name for name in state if state[name].shape == (TOKENIZER.size, 16)] == ["model.predictor.embedding.weight"]
