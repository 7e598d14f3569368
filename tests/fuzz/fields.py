"""Which changes of a run's configuration nobody may accept: by the types that its dataclasses declare."""

from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from qstudy.training.config import RunConfig

from .mutate import Change

SIGNED = ("gain_range_db", "noise_snr_db", "babble_snr_db", "preemphasis")
"""Numbers that may be negative."""
LOOSE = ("start", "strategy", "devices", "accelerator", "cache", "make", "test", "train", "dev")
"""Fields that take several types, or whose content is for others to say."""


def _typed(cls: type, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    hints = get_type_hints(cls)
    for field in fields(cls):
        found[(*path, field.name)] = hints[field.name]
        if is_dataclass(hints[field.name]):
            found |= _typed(hints[field.name], (*path, field.name))
    return found


TYPES = _typed(RunConfig)


def nonsense(change: Change) -> bool:
    """Whether a configuration with this change must be refused."""
    path = tuple(str(key) for key in change.path)
    if set(path) & set(LOOSE):
        return False
    kind = TYPES.get(path)
    match change.how:
        case "type":
            optional = kind is not None and type(None) in get_args(kind)
            if optional and change.old is None:  # what it may be instead is not known here
                return False
            return not (change.new is None and optional) and not (kind is str and _scalar(change.new))
        case "number":
            return _bad_number(path, change.old, change.new)
        case "unknown":
            return kind is not None and is_dataclass(kind)
    return False


def _scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _bad_number(path: tuple[str, ...], old: Any, new: Any) -> bool:
    if new != new or new in (float("inf"), float("-inf")):
        return path[-1] != "clip"
    if isinstance(old, int) and (new != int(new) or new >= 10**30):
        return True
    return new < 0 and not set(path) & set(SIGNED)
