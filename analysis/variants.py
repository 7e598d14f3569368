"""What tells runs of one policy apart: the options that vary among them, in a word or two."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.text import one_line

LONGEST = 60  # characters that a legend has room for
WIDTHS = ("name", "layers", "encoder", "decoder")
"""Options that say which policy it is and how many bits it has: shown elsewhere."""

ORDER = ("float", "ptq", "fake_qat", "mixed", "encoder_only", "native_int", "s8bqat", "accelerator_aware", "int4_e2e")
"""Policies in the order of tables and legends; users' own come after them."""

Options = Mapping[str, Any]
"""A configuration's `policy` section."""


def variants(policies: Sequence[tuple[str, Options]]) -> list[str]:
    """For every (policy, its options) of a study what tells it from the others under its policy: `mse gptq`."""
    grouped: dict[str, list[Options]] = {}
    for policy, options in policies:
        grouped.setdefault(policy, []).append(options)
    varying = {policy: _varying(found) for policy, found in grouped.items()}
    return [_words(options, varying[policy]) for policy, options in policies]


def _varying(found: Sequence[Options]) -> list[str]:
    names = dict.fromkeys(name for options in found for name in options if name not in WIDTHS)
    return [name for name in names if len({repr(options.get(name)) for options in found}) > 1]


def _words(options: Options, names: Iterable[str]) -> str:
    found = [(name, options[name]) for name in names if options.get(name) is not None]
    words = [value if isinstance(value, str) else f"{name}={value}" for name, value in found]
    said = " ".join(dict.fromkeys(words))  # weights and activations both to their `max`: said once
    return one_line(said if len(said) <= LONGEST else f"{said[:LONGEST]}...")


def order(methods: Iterable[str]) -> list[str]:
    """Methods (`ptq max`: a policy and its variant) in a fixed order."""
    places = {policy: place for place, policy in enumerate(ORDER)}

    def rank(method: str) -> tuple[int, str, str]:
        policy = method.partition(" ")[0]
        return places.get(policy, len(ORDER)), "" if policy in places else policy, method

    return sorted(set(methods), key=rank)
