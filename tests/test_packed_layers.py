"""Packed layers compute the training model's integers to the bit: row by row, all at once, in chunks, in one call."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import filled, model_config, packed, speech, talkative
from torch import Tensor

from qstudy.bits import LayerBits, LayerShape
from qstudy.errors import UserError
from qstudy.model import RNNT
from qstudy.quant.integer.accumulator import recorded_accumulators
from qstudy.quant.layers import quantizable
from qstudy.quant.packed.bitpack import pack
from qstudy.quant.packed.integer import PackedInteger
from qstudy.quant.packed.layer import PackedArithmetic, StoredLayer
from qstudy.quant.packed.matrix import ArrangedMatrix
from qstudy.quant.packed.model import fill_packed
from qstudy.quant.packed.program import StackStates
from qstudy.quant.packed.scaled import PackedScaled
from qstudy.quant.packed.weights_only import PackedWeightsOnly

WIDTHS = [2, 3, 4, 5, 6, 7, 8]


def both(widths: dict[str, Any], policy: str = "native_int", hidden: int = 16, **options: Any) -> tuple[RNNT, RNNT]:
    """The training model, and the packed model that runs."""
    config = model_config(hidden=hidden)
    model = talkative(config)
    filler = filled(model, {"name": policy, "layers": {"*": widths}, **options})
    loaded = talkative(config, seed=9)
    fill_packed(loaded, packed(model, filler, config))
    return model, loaded.eval()


@torch.no_grad()
def encoded(model: RNNT, features: Tensor) -> Tensor:
    y: Tensor = model.encoder(features, torch.tensor([features.shape[1]] * len(features)))[0]
    return y


def layer_by_layer(loaded: RNNT, programs: bool) -> RNNT:
    """A copy whose encoder runs its layers one by one; without programs it unpacks whole matrices instead."""
    model = copy.deepcopy(loaded)
    model.encoder.lstm.program = None
    for layer in quantizable(model).values():
        assert isinstance(layer.arithmetic, PackedInteger | PackedWeightsOnly)
        if not programs and isinstance(layer.arithmetic, PackedInteger):
            layer.arithmetic.program = layer.arithmetic.rows = None
    return model


@pytest.mark.parametrize("activation", [4, 8])
@pytest.mark.parametrize("hidden", [16, 37])
@pytest.mark.parametrize("weight", WIDTHS)
def test_every_way_gives_the_training_model_s_bits(weight: int, hidden: int, activation: int) -> None:
    model, loaded = both({"weight": weight, "activation": activation}, hidden=hidden)
    features = speech(batch=1, frames=44)
    fused = encoded(loaded, features)
    assert torch.equal(fused, encoded(model, features))
    assert torch.equal(fused, encoded(layer_by_layer(loaded, programs=True), features))
    assert torch.equal(fused, encoded(layer_by_layer(loaded, programs=False), features))
    assert torch.equal(loaded.joiner.encoder(fused), model.joiner.encoder(fused))
    assert fused.std() > 0.01


@pytest.mark.parametrize(("policy", "weight"), [("native_int", 4), ("s8bqat", 3)])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_batches_change_nothing(policy: str, weight: int, batch: int) -> None:
    _, loaded = both({"weight": weight, "activation": 8}, policy)
    features = speech(batch=batch)
    together = encoded(loaded, features)
    assert torch.equal(together, torch.cat([encoded(loaded, each[None]) for each in features]))


@settings(max_examples=20)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.sampled_from([2, 4, 8]), st.sampled_from([8, 32]))
def test_chunks_are_the_whole(chunks: Sequence[int], weight: int, activation: int) -> None:
    loaded = streamed(weight, activation)
    features = speech(batch=1, frames=4 * sum(chunks))
    state, pieces = None, [features.new_empty(1, 0, loaded.encoder.output_size)]
    with torch.no_grad():
        for chunk in features.split([4 * count for count in chunks], 1):
            y, _, state = loaded.encoder(chunk, torch.tensor([chunk.shape[1]]), state)
            pieces.append(y)
    assert torch.equal(torch.cat(pieces, 1), encoded(loaded, features))


STREAMED: dict[tuple[int, int], RNNT] = {}


def streamed(weight: int, activation: int) -> RNNT:
    """Built once per pair of widths."""
    if (weight, activation) not in STREAMED:
        STREAMED[weight, activation] = both({"weight": weight, "activation": activation})[1]
    return STREAMED[weight, activation]


def test_accumulators_are_recorded_alike() -> None:
    model, loaded = both({"weight": 4, "activation": 8})
    features = speech(batch=1)
    records = []
    for each in (model, loaded, layer_by_layer(loaded, programs=True), layer_by_layer(loaded, programs=False)):
        with recorded_accumulators() as record:
            each.joiner.encoder(encoded(each, features))
        records.append(record)
    shapes = [(40, 1, 64)] * 4 + [(1, 20, 12)]  # two layers of two products, then the joiner's
    for record in records:
        assert [tuple(accumulator.shape) for accumulator in record] == shapes
        assert all(torch.equal(*pair) for pair in zip(record, records[0], strict=True))


def test_copies_run_by_themselves() -> None:
    """A copy's addresses are its own: the original's memory may go."""
    _, loaded = both({"weight": 4, "activation": 8})
    features = speech(batch=1)
    expected, duplicate = encoded(loaded, features), copy.deepcopy(loaded)
    program, other = loaded.encoder.lstm.program, duplicate.encoder.lstm.program
    assert program is not None
    assert other is not None
    assert not set(map(Tensor.data_ptr, program.alive)) & set(map(Tensor.data_ptr, other.alive))
    del loaded, program
    assert torch.equal(encoded(duplicate, features), expected)


@torch.no_grad()
def test_a_stack_takes_no_other_sizes() -> None:
    _, loaded = both({"weight": 4, "activation": 8})
    stack, x = loaded.encoder.lstm, torch.randn(1, 3, 16)
    for size in ((2, 2, 1, 12), (2, 2, 3, 16), (2, 1, 1, 16)):
        with pytest.raises(RuntimeError, match="state"):
            stack(x, StackStates(torch.zeros(size)))
    with pytest.raises(RuntimeError, match="12"):
        stack(x[..., :12], None)


@torch.no_grad()
def test_what_is_no_number_is_the_least_integer_however_many_rows_there_are() -> None:
    layer = both({"weight": 4, "activation": 8})[1].joiner.encoder
    x = torch.randn(300, layer.in_features)
    x[0, 0] = torch.nan
    assert torch.equal(layer(x)[:2], layer(x[:2]))
    assert torch.equal(layer(x)[0], layer(torch.where(x.isnan(), -1e30, x))[0])


def test_states_of_a_stack_are_each_layer_s() -> None:
    _, loaded = both({"weight": 4, "activation": 8})
    x = torch.randn(1, 3, 16)
    with torch.no_grad():
        fused = loaded.encoder.lstm(x, None)[1]
        single = layer_by_layer(loaded, programs=True).encoder.lstm(x, None)[1]
    assert isinstance(fused, StackStates)
    assert len(fused) == len(single) == 2
    for (h, c), (other_h, other_c) in zip(fused, single, strict=True):
        assert h.shape == (1, 1, 16)
        assert torch.equal(h, other_h)
        assert torch.equal(c, other_c)


@given(st.data(), st.integers(1, 150), st.integers(1, 40), st.sampled_from(WIDTHS), st.booleans())
def test_a_matrix_keeps_its_integers(data: st.DataObject, rows: int, columns: int, bits: int, codebook: bool) -> None:
    seed = data.draw(st.integers(0, 999))
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randint(0, 2**bits, (rows, columns), generator=generator)
    own = {"0.codes": pack((indices - 2 ** (bits - 1)).to(torch.int8), bits), "0.scale": torch.ones(1)}
    expected = indices - 2 ** (bits - 1)
    if codebook and bits < 8:
        own["0.table"] = torch.randint(-127, 128, (2**bits,), generator=generator).to(torch.int8)
        own["0.codes"] = pack(indices.to(torch.int8), bits)
        expected = own["0.table"][indices]
    layer = StoredLayer(LayerShape("", "linear", ((rows, columns),)), LayerBits(weight=bits, activation=8), own)
    assert torch.equal(ArrangedMatrix(layer, 0).integers().long(), expected.long())
    assert torch.equal(layer.integers(0).long(), expected.long())


@pytest.mark.parametrize("zero_point", [0, -7, 5])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weight", [2, 3, 4, 8])
def test_a_linear_layer_against_whole_numbers(weight: int, bias: bool, zero_point: int) -> None:
    """The definition, in float64: sums of whole numbers, then float32 operations one by one."""
    generator = torch.Generator().manual_seed(weight)
    integers = torch.randint(-(2 ** (weight - 1)), 2 ** (weight - 1), (9, 33), generator=generator)
    scale, step, shift = torch.rand(9, generator=generator) + 0.1, torch.tensor(0.02), torch.randn(9)
    own = {"0.codes": pack(integers.to(torch.int8), weight), "0.scale": scale}
    own |= {"activation": torch.stack([step, torch.tensor(float(zero_point))])[None]}
    own |= {"bias": shift} if bias else {}
    shape = LayerShape("", "linear", ((9, 33),), activations=1)
    loaded = PackedInteger(StoredLayer(shape, LayerBits(weight=weight, activation=8), own))
    x = 4 * torch.randn(3, 2, 33, generator=generator)
    low = -128 if zero_point else -127
    codes = torch.round(x / step + zero_point).clamp(low, 127).double()
    sums = (codes - zero_point) @ integers.double().t()
    expected = sums.float() * (step * scale)
    expected = expected + shift if bias else expected
    assert torch.equal(loaded.linear(x, torch.empty(0), shift if bias else None), expected)
    many = x.repeat(40, 1, 1)  # too many for one by one
    assert torch.equal(loaded.linear(many, torch.empty(0), shift if bias else None), expected.repeat(40, 1, 1))


class Own(PackedScaled):
    """A user's arithmetic that says nothing of the widths that it takes."""

    def product(self, index: int, x: Tensor) -> Tensor:
        return x * self.qparams(index).scale @ self.values(index).float().t()


@pytest.mark.parametrize("widths", [{"activation": 32}, {"weight": 32}, {"granularity": "group"}], ids=str)
def test_an_own_arithmetic_is_asked_for_no_other_widths_than_its_own(widths: dict[str, Any]) -> None:
    """Any model file can name it for any layer."""
    shape = LayerShape("joiner.output", "linear", ((4, 6),), 0, 1)
    asked = {"weight": 4, "activation": 8, **widths}
    with pytest.raises(UserError, match=r"bit_map.joiner.output: .* `test_packed_layers.Own` does not take"):
        Own.check(StoredLayer(shape, LayerBits(**asked), {}))
    with pytest.raises(UserError, match=r"joiner.output.0.codes is missing"):
        Own.check(StoredLayer(shape, LayerBits(weight=4, activation=8), {}))


def test_no_class_takes_the_place_of_ours() -> None:
    with pytest.raises(TypeError, match="'integer' is the name of another"):
        type("Mine", (PackedScaled,), {"__module__": "mine"}, name="integer")
    assert PackedArithmetic.known["integer"] is PackedInteger
