"""What tells runs of one policy apart: the options that vary among them, in a word or two."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from analysis.fields import mapping
from analysis.records import Run
from analysis.text import one_line

LONGEST = 60  # characters that a legend has room for
WIDTHS = ("name", "layers", "encoder", "decoder")
"""Options that say which policy it is and how many bits it has: shown elsewhere."""


def with_variants(runs: Sequence[Run]) -> list[Run]:
    """The same runs, each told apart from the others under its policy: `max`, `mse gptq`, `strength=0.5`."""
    options = {id(run): _options(run) for run in runs}
    varying = {
        policy: _varying([options[id(run)] for run in runs if run.policy == policy])
        for policy in {run.policy for run in runs}
    }
    return [replace(run, variant=_words(options[id(run)], varying[run.policy])) for run in runs]


def _options(run: Run) -> dict[str, Any]:
    config = run.raw.get("config")
    policy = config.get("policy") if isinstance(config, dict) else None
    return {key: value for key, value in mapping(policy, "config.policy").items() if key not in WIDTHS}


def _varying(options: Sequence[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for one in options for name in one)
    return [name for name in names if len({repr(one.get(name)) for one in options}) > 1]


def _words(options: dict[str, Any], names: Iterable[str]) -> str:
    found = [(name, options[name]) for name in names if options.get(name) is not None]
    words = [value if isinstance(value, str) else f"{name}={value}" for name, value in found]
    said = " ".join(dict.fromkeys(words))  # weights and activations both to their `max`: said once
    return one_line(said if len(said) <= LONGEST else f"{said[:LONGEST]}...")
