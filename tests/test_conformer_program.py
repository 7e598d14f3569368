"""Packed Conformer blocks in one compiled call: the same stream as layer by layer."""

import copy
import pickle
from typing import Any

import pytest
import torch
from tiny import FEATURES, filled, packed, talkative

from qstudy.bits import LayerBits, LayerShape
from qstudy.model import RNNT, ModelConfig
from qstudy.model.encoders.conformer_program import ConformerProgram
from qstudy.quant.arithmetics.fixed_point import FixedPointArithmetic
from qstudy.quant.fixed_point.operators import FixedPoint
from qstudy.quant.integer.accumulator import recorded_accumulators
from qstudy.quant.kernels import usable
from qstudy.quant.layers import Quantizable
from qstudy.quant.operators import Softmax
from qstudy.quant.packed.model import fill_packed
from qstudy.quant.policies.native_int import NativeInt

ENCODER = {"name": "conformer", "size": 24, "blocks": 2, "heads": 3, "kernel": 5, "left": 7, "stack": 2, "reduction": 1}
CONFIG = ModelConfig(ENCODER, {"name": "lstm", "hidden": 16, "embedding": 8}, {"hidden": 12})
CUTS = {"one by one": [1] * 40, "two": [2] * 20, "uneven": [1, 3, 2, 9, 16, 5, 4], "halves": [20, 20]}

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not usable(), reason="no compiled kernels on this processor"),
]


class FixedPointSoftmax(NativeInt):
    """Native integers, and the accelerator's softmax."""

    def widths(self, shape: LayerShape, bits: LayerBits) -> LayerBits | None:
        if shape.kind == "softmax":
            return LayerBits(activation=bits.activation, placement=bits.placement)
        return super().widths(shape, bits)

    def arithmetic(self, layer: Quantizable, bits: LayerBits) -> Any:
        if isinstance(layer, Softmax):
            return FixedPointArithmetic([], spec=FixedPoint(nonlinearity="linear"))
        return super().arithmetic(layer, bits)


def loaded(policy: str = "native_int", config: ModelConfig = CONFIG, **widths: Any) -> RNNT:
    """A packed model."""
    layers = {"*": {"weight": 4, "activation": 8} | widths}
    model = talkative(config)
    device = packed(model, filled(model, {"name": policy, "layers": layers}), config)
    fill_packed(fresh := talkative(config, seed=9), device)
    return fresh.eval()


def program_of(model: RNNT) -> Any:
    return model.encoder.blocks.program


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize(("policy", "weight"), [("native_int", 4), ("native_int", 8), ("int4_e2e", 4), ("ptq", 3)])
@torch.no_grad()
def test_a_stream_is_the_whole(policy: str, weight: int, cuts: list[int]) -> None:
    blocks = loaded(policy, weight=weight).encoder.blocks
    x, program = torch.randn(1, 40, 24), blocks.program
    whole, _ = blocks(x, torch.tensor([40]))
    with recorded_accumulators():
        by_layer, _ = blocks(x, torch.tensor([40]))
    state, parts = None, []
    for chunk in x.split(cuts, 1):
        assert program.accepts(chunk)
        y, state = blocks(chunk, torch.tensor([chunk.shape[1]]), state)
        parts.append(y)
    assert torch.equal(torch.cat(parts, 1), whole)
    assert (whole - by_layer).abs().median() < 1e-5
    assert (whole - by_layer).abs().max() < 0.1 * whole.abs().max()  # where a last bit moved a code


@torch.no_grad()
def test_states_go_both_ways() -> None:
    blocks = loaded().encoder.blocks
    x, lengths = torch.randn(1, 30, 24), torch.tensor([10])
    for first, second in ((True, False), (False, True)):
        kept = blocks.program
        blocks.program = kept if first else None
        _, state = blocks(x[:, :10], lengths)
        blocks.program = kept if second else None
        y, _ = blocks(x[:, 10:20], lengths, state if second else list(state))
        blocks.program = None
        expected, _ = blocks(x[:, :20], torch.tensor([20]))
        blocks.program = kept
        assert (y - expected[:, 10:]).abs().median() < 1e-5


@torch.no_grad()
def test_a_state_can_be_used_twice() -> None:
    program = program_of(loaded())
    x = torch.randn(1, 12, 24)
    _, state = program(x[:, :6], None)
    first, second = (program(x[:, 6:], state)[0] for _ in range(2))
    assert torch.equal(first, second)


@torch.no_grad()
def test_copies_run() -> None:
    model = loaded()
    features = torch.randn(1, 4 * model.encoder.chunk_frames, FEATURES.bins)
    lengths = torch.tensor([features.shape[1]])
    expected, _, _ = model.encoder(features, lengths)
    twin = copy.deepcopy(model)
    del model
    assert torch.equal(twin.encoder(features, lengths)[0], expected)
    assert isinstance(pickle.loads(pickle.dumps(program_of(twin))), ConformerProgram)


def test_what_it_leaves_to_the_layers() -> None:
    model = loaded()
    program = program_of(model)
    assert not program.accepts(torch.zeros(2, 1, 24))
    assert not program.accepts(torch.zeros(1, 0, 24))
    with recorded_accumulators():
        assert not program.accepts(torch.zeros(1, 1, 24))
    ahead = ModelConfig({**ENCODER, "right": 2, "causal": False}, CONFIG.predictor, CONFIG.joiner)
    plain = ModelConfig({**ENCODER, "position": "none"}, CONFIG.predictor, CONFIG.joiner)
    others = [loaded(config=ahead), loaded(config=plain), loaded("accelerator_aware"), loaded(activation=16)]
    others.append(loaded("s8bqat", activation=32))
    others.append(loaded(f"{__name__}.FixedPointSoftmax"))
    assert [program_of(each) for each in others] == [None] * len(others)


def test_frames_and_states_of_other_models_are_refused() -> None:
    program, other = program_of(loaded()), ModelConfig({**ENCODER, "left": 3}, CONFIG.predictor, CONFIG.joiner)
    assert not program.accepts(torch.zeros(1, 1, 23))
    _, states = program_of(loaded(config=other))(torch.zeros(1, 4, 24), None)
    with pytest.raises(RuntimeError, match="do not fit"):
        program(torch.zeros(1, 1, 24), states)


def test_a_float_model_has_none() -> None:
    assert program_of(talkative(CONFIG)) is None
