"""`mixed` and `encoder_only` over every policy: which layers get which widths, and that all of it runs packed."""

from typing import Any

import pytest
import torch
from tiny import filled, packed, speech, talkative

from qstudy.bits import FLOAT
from qstudy.hardware.size import size_bytes
from qstudy.model import RNNT
from qstudy.quant.layers import quantizable
from qstudy.quant.packed.model import fill_packed
from qstudy.quant.policies import POLICIES, build_policy

BASES = [name for name in POLICIES if name != "float"]
LSTMS = {"weight": 4, "activation": 8}
NAMES = list(quantizable(talkative()))
MIXED = {name: {"weight": bits, "activation": 8} for name, bits in zip(NAMES, (8, 2, 4, 3, 5, 6, 7), strict=True)}
CONFIGS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "encoder at 4, decoder float": ({"name": "encoder_only", "encoder": LSTMS}, [4, 4, *[FLOAT] * 5]),
    "encoder at 4, decoder at 8": (
        {"name": "encoder_only", "encoder": LSTMS, "decoder": {"weight": 8, "activation": 8}},
        [4, 4, 8, 8, 8, 8, 8],
    ),
    "mixed": ({"name": "mixed", "layers": MIXED}, [8, 2, 4, 3, 5, 6, 7]),
}


@torch.no_grad()
def logits(model: RNNT) -> torch.Tensor:
    result: torch.Tensor = model(speech(), torch.full((3,), 80), torch.ones(3, 4, dtype=torch.int64))[0]
    return result


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("case", CONFIGS)
def test_a_map_over_every_policy_trains_and_is_packed(case: str, base: str) -> None:
    config, expected = CONFIGS[case]
    model = talkative()
    policy = filled(model, {**config, "base": base})
    assert type(policy) is POLICIES[base]
    bit_map = policy.bit_map(model.shapes())
    assert [bits.weight for bits in bit_map.values()] == expected
    for name, layer in quantizable(model).items():
        assert (layer.arithmetic is None) == (bit_map[name].weight == FLOAT)

    model.train()
    inputs = speech(seed=3), torch.full((3,), 80), torch.ones(3, 5, dtype=torch.int64)
    (model(*inputs)[0].square().mean() + policy.penalty(model, 1)).backward()
    if policy.trains:
        gradients = {name: [m.grad for m in layer.matrices()] for name, layer in quantizable(model).items()}
        assert [name for name, each in gradients.items() if not all(g.isfinite().all() and g.any() for g in each)] == []

    device = packed(model.eval(), policy)
    assert device.size_bytes == size_bytes(model.shapes(), bit_map)
    loaded = talkative(seed=9)
    fill_packed(loaded, device)
    there, here = logits(loaded.eval()), logits(model)
    assert float((there - here).abs().mean()) < 0.03 * float(here.abs().mean())


@pytest.mark.parametrize("base", BASES)
def test_options_reach_the_base(base: str) -> None:
    """Those of the base's own, by the base's own checks."""
    config = {"name": "mixed", "layers": {"*": LSTMS}, "base": base}
    assert build_policy(config).layers == {"*": LSTMS}
    with pytest.raises(Exception, match="nonsense"):
        build_policy({**config, "nonsense": 1})


def test_the_papers_encoder_only_is_in_native_integers() -> None:
    config = {"name": "encoder_only", "encoder": LSTMS}
    assert type(build_policy(config)) is POLICIES["fake_qat"]
    policy = build_policy({**config, "base": "paper"})
    assert type(policy) is POLICIES["native_int"]
    assert policy.activation_range == "row"
    assert build_policy({**config, "base": "paper", "activation_range": "ema"}).activation_range == "ema"
