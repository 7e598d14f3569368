"""One file per policy; `build_policy` makes one from its YAML form."""

from collections.abc import Callable, Mapping
from typing import Any

from qstudy.named import build
from qstudy.quant.policies.accelerator_aware import AcceleratorAware
from qstudy.quant.policies.base import QuantPolicy
from qstudy.quant.policies.encoder_only import encoder_only
from qstudy.quant.policies.fake_qat import FakeQAT
from qstudy.quant.policies.float_ import Float
from qstudy.quant.policies.int4_e2e import Int4E2E
from qstudy.quant.policies.mixed import mixed
from qstudy.quant.policies.native_int import NativeInt
from qstudy.quant.policies.ptq import PTQ
from qstudy.quant.policies.s8bqat import S8BQAT
from qstudy.quant.policies.switchable import Switchable

POLICIES: dict[str, Callable[..., QuantPolicy]] = {
    "float": Float,
    "ptq": PTQ,
    "fake_qat": FakeQAT,
    "accelerator_aware": AcceleratorAware,
    "native_int": NativeInt,
    "int4_e2e": Int4E2E,
    "s8bqat": S8BQAT,
    "switchable": Switchable,
}
"""Short names; anything else is an import path."""

MAPS: dict[str, Callable[..., dict[str, Any]]] = {"mixed": mixed, "encoder_only": encoder_only}
"""Policies that are a bit map over another policy: functions from their own configuration to that policy's."""


def build_policy(config: Mapping[str, Any]) -> QuantPolicy:
    """Make a policy from `{"name": ..., **options}`; a dotted name is a class in the user's own file.

    Raises:
        UserError: unknown name or option, or a class that is no policy.
    """
    known: Mapping[str, Callable[..., Any]] = {**POLICIES, **MAPS}
    if str(config.get("name")) in MAPS:
        config, known = build(config, MAPS, "policy"), POLICIES  # a map has no other map as its base
    policy: QuantPolicy = build(config, known, "policy", kind=QuantPolicy)
    policy.name = config["name"]
    return policy
