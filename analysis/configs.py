"""Configurations of runs: which fields differ between runs, and which runs differ in their seed alone."""

import json
from collections.abc import Sequence
from functools import lru_cache
from sys import intern
from typing import Any

from qstudy.files import content_hash
from qstudy.training.record import Record


def flat(config: Any) -> dict[str, Any]:
    """A nested configuration as dotted keys; lists become JSON."""
    found: dict[str, Any] = {}
    _flatten(config or {}, "", found)
    return found


def _flatten(config: dict[str, Any], prefix: str, found: dict[str, Any]) -> None:
    for key, value in config.items():
        if isinstance(value, dict):
            _flatten(value, f"{prefix}{key}.", found)
        else:
            plain: Any = json.dumps(value) if isinstance(value, list) else value
            found[intern(f"{prefix}{key}")] = _shared(plain, str(type(plain)))


@lru_cache(maxsize=100_000)
def _shared(value: Any, kind: str) -> Any:
    """The same object for equal values: thousands of runs agree in most."""
    return value


def varying(configs: Sequence[dict[str, Any]]) -> list[str]:
    """The fields of flat configurations that differ, sorted; that a configuration lacks a field does not count."""
    seen: dict[str, set[Any]] = {}
    for config in configs:
        for key, value in config.items():
            seen.setdefault(key, set()).add((type(value), value))
    return sorted(key for key, values in seen.items() if len(values) > 1)


def setting(record: Record) -> str:
    """The same text for runs that differ in nothing but their seed."""
    config: Any = dict(record.config or {"run": record.run})
    config.pop("seed", None)
    return content_hash(record.policy, record.baseline is None, config, record.bit_map)
