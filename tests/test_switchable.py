"""The policy `switchable`: at every allocation it is the model that a policy of these widths makes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import filled, packed, run_config, speech, talkative
from torch import nn
from torch.nn import functional as F

import qstudy
from qstudy.bits import BitMap
from qstudy.commands.export import export
from qstudy.errors import UserError
from qstudy.model import RNNT
from qstudy.quant.arithmetics.switch import Switch
from qstudy.quant.layers import quantizable
from qstudy.quant.operators import LayerNorm, Softmax
from qstudy.quant.packed.model import PackedModel
from qstudy.quant.policies import build_policy
from qstudy.quant.policies.switchable import Switchable
from qstudy.training.checkpoint import pack_checkpoint
from qstudy.training.run import run

LAYERS: dict[str, Any] = {"*": {"weight": [2, 4, 8]}, "joiner.*": {"weight": 8}}
ALLOCATION: dict[str, Any] = {"*": {"weight": 4}, "encoder.lstm.1": {"weight": 2}, "joiner.*": {"weight": 8}}


def switchable(layers: Any = LAYERS, **options: Any) -> tuple[RNNT, Switchable]:
    model = talkative()
    policy = filled(model, {"name": "switchable", "layers": layers, **options}, batches=6)
    assert isinstance(policy, Switchable)
    return model, policy


def logits(model: RNNT) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(speech(), torch.full((3,), 80), torch.ones(3, 4, dtype=torch.int64))[0]
    return result


def bit_map(model: RNNT, layers: Any, base: str = "fake_qat") -> BitMap:
    return build_policy({"name": base, "layers": layers}).bit_map(model.shapes())


def switches(model: RNNT) -> dict[str, Switch]:
    return {name: each.arithmetic for name, each in quantizable(model).items() if isinstance(each.arithmetic, Switch)}


@pytest.mark.parametrize("base", ["fake_qat", "native_int", "int4_e2e", "ptq"])
def test_at_an_allocation_it_is_the_model_of_these_widths(base: str) -> None:
    model, policy = switchable(base=base)
    policy.switch_(model, bit_map(model, ALLOCATION, base))
    plain = talkative()
    other = filled(plain, {"name": base, "layers": ALLOCATION})
    assert torch.equal(logits(model), logits(plain))
    assert not torch.equal(logits(model), logits(talkative()))
    tensors = packed(plain, other).tensors
    switched = build_policy({"name": base, "layers": ALLOCATION})
    assert all(torch.equal(tensors[name], each) for name, each in packed(model, switched).tensors.items())


def test_widths_of_weights_and_activations_are_combined_and_the_widest_is_first() -> None:
    layers = {"*": {"weight": [2, 8], "activation": [4, 8]}, "joiner.*": {"weight": 3}}
    policy = build_policy({"name": "switchable", "layers": layers})
    assert isinstance(policy, Switchable)
    allowed = policy.allowed_widths(talkative().shapes())
    assert [(b.weight, b.activation) for b in allowed["encoder.lstm.0"]] == [(8, 8), (8, 4), (2, 8), (2, 4)]
    assert [(b.weight, b.activation) for b in allowed["joiner.output"]] == [(3, 8), (3, 4)]
    assert {bits.weight for bits in policy.bit_map(talkative().shapes()).values()} == {8, 3}


def test_every_step_draws_anew_and_evaluation_takes_the_widest() -> None:
    model, policy = switchable()
    model.train()

    def drawn(step: int) -> list[int]:
        policy.project_(model, step)
        return [switch.chosen for switch in switches(model).values()]

    draws = [drawn(step) for step in range(30)]
    assert {index for draw in draws for index in draw} == {0, 1, 2}
    assert len(set(map(tuple, draws))) > 20
    assert draws == [drawn(step) for step in range(30)]  # whoever resumes goes on alike
    model.eval()
    assert set(drawn(3)) == {0}


def test_quantizers_are_kept_apart() -> None:
    """Only the quantizer of the width that computes gets a gradient."""
    model, policy = switchable()
    policy.switch_(model, bit_map(model, ALLOCATION))
    model(speech(), torch.full((3,), 80), torch.ones(3, 4, dtype=torch.int64))[0].square().mean().backward()
    for name, switch in switches(model).items():
        moved = [any(p.grad is not None for p in each.parameters()) for each in switch.each]
        assert moved == [index == switch.chosen for index in range(len(moved))], name


def test_float_is_a_width_too() -> None:
    model, policy = switchable({"*": {"weight": [32, 4]}}, base="ptq")
    policy.switch_(model, bit_map(model, {"*": {"weight": 32}}, "ptq"))
    assert torch.equal(logits(model), logits(talkative()))


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        (LAYERS, {"base": "s8bqat"}, "policy.base: layers of s8bqat cannot be switched"),
        ({"*": {"weight": []}}, {}, r"layers: \*: weight is an empty list"),
        ({"*": {"weight": [2, 3, 4, 5, 6, 7, 8]}}, {}, "7 widths of one layer are more than the 6 batches"),
        ({"*": {"weight": [2, 9]}}, {}, "weight: 9 bits is not one of"),
        ({"*": {"weigth": [2, 4]}}, {}, "unknown field 'weigth'"),
        ({"*": 4}, {}, "should be a mapping"),
    ],
)
def test_what_cannot_be_is_said(layers: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        switchable(layers, **options)


def test_packed_after_training_it_has_the_widest_widths(tmp_path: Path) -> None:
    """Not those that the last step drew, which the header would call by the widest ones' name."""
    torch.manual_seed(0)
    x, layers = torch.randn(64, 16), {"*": {"weight": [8, 2], "activation": 8}}
    model = qstudy.quantize(nn.Sequential(nn.Linear(16, 16)), {"name": "switchable", "layers": layers})
    policy = qstudy.calibrate(model, [x] * 4).quant_policy
    widest, drawn = model.eval()(x), [1]
    for step in range(20):
        policy.project_(model.train(), step)
        drawn.append(next(iter(switches(model).values())).chosen)
        qstudy.pack(model.eval()).save(tmp_path / "model.qst")
        loaded = qstudy.load(tmp_path / "model.qst", into=nn.Sequential(nn.Linear(16, 16)))
        torch.testing.assert_close(loaded(x), widest)
    assert set(drawn) == {0, 1}


def test_operators_without_products_may_be_float_or_not(tmp_path: Path) -> None:
    """Float is the widest, and what is packed."""
    x, layers = torch.randn(6, 4), {"0": {"weight": 8, "activation": 8}, "[12]": {"activation": [8, 32]}}

    def build() -> nn.Sequential:
        return nn.Sequential(nn.Linear(4, 4), LayerNorm(4), Softmax(4))

    model = qstudy.quantize(build(), {"name": "switchable", "base": "accelerator_aware", "layers": layers})
    policy, normalized = qstudy.calibrate(model, [x] * 6).eval().quant_policy, model[:2]
    torch.testing.assert_close(normalized(x), F.layer_norm(model[0](x), (4,)))
    qstudy.pack(model).save(tmp_path / "model.qst")
    torch.testing.assert_close(qstudy.load(tmp_path / "model.qst", into=build())(x), model(x))
    shapes = [layer.shape(name) for name, layer in quantizable(model).items()]
    policy.switch_(model, {name: widths[-1] for name, widths in policy.allowed_widths(shapes).items()})
    units = normalized(x) * 2**12  # 16 bits for [-8, 8)
    assert torch.equal(units, units.round())


def test_a_base_that_chooses_its_integers_once_is_not_trained() -> None:
    """It may be calibrated, to rank allocations by rounding alone."""
    model, policy = switchable(base="ptq", rounding="gptq")
    policy.switch_(model, bit_map(model, ALLOCATION, "ptq"))
    assert logits(model).isfinite().all()
    with pytest.raises(UserError, match=r"policy\.base: no gradient passes the quantizers of ptq"):
        policy.penalty(model.train(), 0)


def test_a_width_that_was_not_trained_is_refused() -> None:
    model, policy = switchable()
    with pytest.raises(UserError, match=r"encoder.lstm.0: 3-bit weights .* not among the widths"):
        policy.switch_(model, bit_map(model, {"*": {"weight": 3}}))


def test_a_trained_checkpoint_is_packed_at_any_allocation(corpus: Path, tmp_path: Path) -> None:
    layers = {"*": {"weight": [2, 8], "activation": 8}}
    config = run_config(corpus, tmp_path, policy={"name": "switchable", "layers": layers})
    record = run(config, tmp_path / "run", name="run")
    checkpoint, out = tmp_path / "run" / "last.ckpt", tmp_path / "two.qst"
    assert pack_checkpoint(checkpoint).size_bytes == record.size_bytes  # the widest
    export(checkpoint, out, policy={"name": "mixed", "layers": {"*": {"weight": 2, "activation": 8}}})
    two = PackedModel.load(out)
    assert {bits.weight for bits in two.bit_map.values()} == {2}
    assert record.size_bytes is not None
    assert two.size_bytes < record.size_bytes / 2
    with pytest.raises(UserError, match="3-bit weights"):
        export(checkpoint, out, policy={"name": "fake_qat", "layers": {"*": {"weight": 3, "activation": 8}}})
