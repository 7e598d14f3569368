"""What a field of a record may hold: records come from anybody, and their numbers and words go into figures and names.

Each function returns the value as it is used, and raises a ValueError that names the field.
"""

import math
from collections.abc import Mapping
from typing import Any

SMALLEST, LARGEST = 1e-9, 1e15  # beyond these no axis can be drawn
LABEL = 200  # characters: what is written beside points, into legends and table heads
SHOWN = 80  # characters of a wrong value in a message


def number(value: Any, name: str) -> float | None:
    """A finite number; None where it is absent."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {shown(value)}, not a number")
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise ValueError(f"{name} is {shown(value)}, which is out of range")
    return float(value)


def amount(value: Any, name: str) -> float | None:
    """A number of bytes, milliseconds, errors, ...: 0 or more."""
    found = number(value, name)
    if found is not None and found != 0 and found < SMALLEST:
        raise ValueError(f"{name} is {shown(value)}, not 0 or more")
    return found


def count(value: Any, name: str) -> int | None:
    """A whole number, 0 or more."""
    found = amount(value, name)
    if found is not None and found != int(found):
        raise ValueError(f"{name} is {shown(value)}, not a whole number")
    return None if found is None else int(found)


def text(value: Any, name: str) -> str:
    """Text of any length; empty where it is absent."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {shown(value)}, not text")
    return value


def label(value: Any, name: str) -> str:
    """A name that is drawn and printed: one line, not too long; empty where it is absent."""
    found = text(value, name)
    if len(found) > LABEL or not found.isprintable():
        raise ValueError(f"{name} is {shown(value)}, not one line of at most {LABEL} characters")
    return found


def mapping(value: Any, name: str) -> dict[str, Any]:
    """A mapping from labels; empty where it is absent."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is {shown(value)}, not a mapping")
    return {label(key, f"a key of {name}"): inner for key, inner in value.items()}


def mappings(value: Any, name: str) -> dict[str, dict[str, Any]]:
    """A mapping from labels to mappings."""
    return {key: mapping(inner, f"{name}.{key}") for key, inner in mapping(value, name).items()}


def shown(value: Any) -> str:
    """A wrong value for a message, cut off where it is long."""
    words = repr(value)
    return words if len(words) <= SHOWN else f"{words[:SHOWN]}..."
