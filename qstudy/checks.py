"""What single values must be: each function raises one sentence that names the field, the value and what is allowed."""

import math
import reprlib
from collections.abc import Collection
from typing import Any

from qstudy.errors import UserError

MOST_SEED = 2**32 - 1
"""The greatest seed that NumPy's generators and Lightning take."""
_shortly = reprlib.Repr()
_shortly.maxstring = _shortly.maxother = 80


def shown(value: Any) -> str:
    """A value as it stands in a message: its beginning, if it is long."""
    return _shortly.repr(value)


def whole(field: str, value: Any, low: int, high: int) -> None:
    """Raise UserError unless `value` is an integer from `low` to `high`; True and 4.0 are none."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UserError(f"{field}: {shown(value)} is not a whole number from {low:,} to {high:,}.")


def number(field: str, value: Any, low: float, high: float, above: bool = False) -> None:
    """Raise UserError unless `value` is a number from `low` to `high`; `above`: `low` itself is not allowed."""
    if not _is_number(value) or not low <= value <= high or (above and value == low):
        begin = f"above {low:,} and up" if above else f"from {low:,}"
        raise UserError(f"{field}: {shown(value)} is not a number {begin} to {high:,}.")


def share(field: str, value: Any) -> None:
    """Raise UserError unless `value` is a number from 0 to 1."""
    number(field, value, 0, 1)


def span(field: str, value: Any, low: float, high: float) -> None:
    """Raise UserError unless `value` is two numbers from `low` to `high`, the smaller one first."""
    if not isinstance(value, Collection) or len(value) != 2:
        raise UserError(f"{field}: {shown(value)} is not a pair of numbers.")
    first, last = value
    for end in (first, last):
        number(field, end, low, high)
    if first > last:
        raise UserError(f"{field}: {shown(value)} must begin with the smaller number.")


def choice(field: str, value: Any, choices: Collection[Any]) -> None:
    """Raise UserError unless `value` is one of `choices`, of the same type: 4.0 and True are no integers."""
    if not any(value == each and type(value) is type(each) for each in choices):
        raise UserError(f"{field}: {shown(value)} is not one of {', '.join(map(str, choices))}.")


def text(field: str, value: Any) -> None:
    """Raise UserError unless `value` is text that can be written to a file, and be a file's name: not empty."""
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{field}: {shown(value)} is not a text; write a word or a path there.")
    writable(field, value)


def writable(field: str, value: str) -> None:
    """Raise UserError if a text holds a NUL or half a surrogate pair, which no file takes."""
    if "\0" in value or value.encode("utf-8", "replace").decode("utf-8") != value:
        raise UserError(f"{field}: {shown(value)} holds a character that no file takes; remove it.")


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
