"""Configurations of runs as flat mappings, and which of their fields differ."""

import json
from collections.abc import Iterable
from functools import lru_cache
from sys import intern
from typing import Any


def flat(config: Any) -> dict[str, Any]:
    """A nested configuration as dotted keys; lists become JSON."""
    found: dict[str, Any] = {}
    for key, value in (config or {}).items():
        if isinstance(value, dict):
            found |= {intern(f"{key}.{inner}"): leaf for inner, leaf in flat(value).items()}
        else:
            found[intern(key)] = _shared(json.dumps(value) if isinstance(value, list) else value, str(type(value)))
    return found


def compact(config: Any) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """The same as names, which are there once for thousands of runs, and values."""
    found = flat(config)
    return _shared(tuple(found), "names"), tuple(found.values())


@lru_cache(maxsize=100_000)
def _shared(value: Any, kind: str) -> Any:
    """The same object for equal values: thousands of runs agree in most."""
    return value


def varying(configs: Iterable[dict[str, Any]]) -> list[str]:
    """The fields of flat configurations that differ, sorted; that a configuration lacks a field does not count."""
    seen: dict[str, set[Any]] = {}
    for config in configs:
        for key, value in config.items():
            seen.setdefault(key, set()).add((type(value), value))
    return sorted(key for key, values in seen.items() if len(values) > 1)
