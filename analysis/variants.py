"""What tells runs of one policy apart: the options that vary among them, in a word or two."""

from collections import Counter
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


def variants(found: Sequence[Options]) -> list[str]:
    """For each of the options that a study's runs give one policy, what tells it from the others: `mse gptq`.

    Values alone, but where two settings would read alike.
    """
    names = dict.fromkeys(name for options in found for name in options if name not in WIDTHS)
    varying = [name for name in names if len({repr(options.get(name)) for options in found}) > 1]
    told = [{name: value for name in varying if (value := options.get(name)) is not None} for options in found]
    short = [_words(options) for options in told]
    alike = Counter(words for words, _ in {(words, repr(options)) for words, options in zip(short, told, strict=True)})
    return _numbered(
        [
            _line(words if alike[words] == 1 else [f"{name}={value}" for name, value in options.items()])
            for words, options in zip(short, told, strict=True)
        ],
        told,
    )


def _numbered(lines: Sequence[str], told: Sequence[Options]) -> list[str]:
    """Lines that were cut where they still agreed get a number: methods are told apart by them."""
    different: dict[str, list[str]] = {}
    for line, options in zip(lines, map(repr, told), strict=True):
        if options not in different.setdefault(line, []):
            different[line].append(options)
    return [
        line if len(different[line]) == 1 else f"{line} ({different[line].index(repr(options)) + 1})"
        for line, options in zip(lines, told, strict=True)
    ]


def _words(options: Options) -> tuple[str, ...]:
    """Values that are words speak for themselves; weights and activations both to their `max` is said once."""
    words = (value if isinstance(value, str) else f"{name}={value}" for name, value in options.items())
    return tuple(dict.fromkeys(words))


def _line(words: Iterable[str]) -> str:
    said = " ".join(words)
    return one_line(said if len(said) <= LONGEST else f"{said[:LONGEST]}...")


def order(methods: Iterable[str]) -> list[str]:
    """Methods (`ptq max`: a policy and its variant) in a fixed order."""

    def rank(method: str) -> tuple[int, str, str]:
        policy = method.partition(" ")[0]
        return (ORDER.index(policy), "", method) if policy in ORDER else (len(ORDER), policy, method)

    return sorted(set(methods), key=rank)
