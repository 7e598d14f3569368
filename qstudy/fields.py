"""Plain values (YAML, JSON, a checkpoint's configuration) as the fields of dataclasses and the options of parts.

Strict: 4.0 is no whole number, True no number, "4" neither. Nothing is imported and no text is evaluated, so that the
values may come from strangers.
"""

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_origin

from qstudy.checks import choice, number, shown, writable
from qstudy.errors import UserError

T = TypeVar("T")
MOST = float("1e300")  # a float's limits are its field's business


def fill(cls: type[T], values: Any, where: str = "") -> T:
    """An instance of a dataclass.

    Args:
        cls: the dataclass; its fields may be dataclasses.
        values: field -> value.
        where: the dotted name of the field that it becomes, for messages.

    Raises:
        UserError: a field is unknown, missing, or of another type.
    """
    made: Any = cls
    hints, known = type_hints(made), {field.name: field for field in fields(made)}
    if not isinstance(values, Mapping):
        said = f"{where}: {shown(values)}" if where else "The configuration"
        raise UserError(f"{said} must be a mapping with the fields {', '.join(known)}.")
    for name in values:
        if name not in known:
            raise UserError(f"{dotted(where, name)}: there is no such field; fields are {', '.join(known)}.")
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            if not is_dataclass(hints[name]):
                raise UserError(f"{dotted(where, name)}: the field is missing.")
            values = {**values, name: {}}  # which lacks a field itself
    converted = {name: convert(hints[name], value, dotted(where, name)) for name, value in values.items()}
    try:
        return cls(**converted)
    except UserError as error:  # the class knows its fields' names, not its own
        raise UserError(dotted(where, error)) from error


def convert(kind: Any, value: Any, where: str) -> Any:
    """`value` as one of the type `kind`: whole numbers become floats, lists tuples; types unknown here take anything.

    Raises:
        UserError: it is none.
    """
    if is_dataclass(kind):
        return fill(typing.cast(type[Any], kind), value, where)
    read = _READERS.get(get_origin(kind) or kind)
    return value if read is None else read(kind, value, where)


def check_options(part: Callable[..., Any], options: Mapping[str, Any], where: str) -> None:
    """Raise UserError unless the options of a function or class have the types that its signature says."""
    hints = type_hints(part.__init__ if isinstance(part, type) else part)  # type: ignore[misc]
    for name, value in options.items():
        convert(hints.get(name, Any), value, dotted(where, name))


def updated(cls: type, values: Mapping[str, Any], changes: Any) -> dict[str, Any]:
    """`values` with `changes`, as a later file changes an earlier one: sections (dataclasses) field by field."""
    if not isinstance(changes, Mapping):
        raise UserError("A section of the configuration must be a mapping of fields.")
    merged, hints = dict(values), type_hints(cls)
    for name, value in changes.items():
        section = hints.get(name)
        if is_dataclass(section) and isinstance(value, Mapping):
            value = updated(typing.cast(type, section), merged.get(name, {}), value)
        merged[name] = value
    return merged


@cache
def type_hints(owner: Any) -> dict[str, Any]:
    """The types of a dataclass's fields or a function's parameters; none if they cannot be resolved."""
    try:
        return typing.get_type_hints(owner)
    except Exception:  # the user's own annotations may be anything
        return {}


def dotted(where: str, name: Any) -> str:
    """The name of a field inside another."""
    return f"{where}.{name}" if where else str(name)


def _whole(kind: Any, value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{where}: {shown(value)} is not a whole number.")
    return value


def _number(kind: Any, value: Any, where: str) -> float:
    number(where, value, -MOST, MOST)
    return float(value)


def _flag(kind: Any, value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{where}: {shown(value)} is neither true nor false.")
    return value


def _text(kind: Any, value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: {shown(value)} is not a text; put it in quotes.")
    writable(where, value)
    return value


def _nothing(kind: Any, value: Any, where: str) -> None:
    if value is not None:
        raise UserError(f"{where}: {shown(value)} is not null.")


def _literal(kind: Any, value: Any, where: str) -> Any:
    choice(where, value, get_args(kind))
    return value


def _list(kind: Any, value: Any, where: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise UserError(f"{where}: {shown(value)} is not a list.")
    (item,) = get_args(kind) or (Any,)
    return [convert(item, each, f"{where}[{index}]") for index, each in enumerate(value)]


def _tuple(kind: Any, value: Any, where: str) -> tuple[Any, ...]:
    items = get_args(kind)
    if not isinstance(value, list | tuple):
        raise UserError(f"{where}: {shown(value)} is not a list.")
    kinds = (items[0],) * len(value) if items[1:] == (Ellipsis,) else items
    if len(kinds) != len(value):
        raise UserError(f"{where}: {shown(value)} does not hold {len(kinds)} values.")
    return tuple(convert(item, each, where) for item, each in zip(kinds, value, strict=True))


def _mapping(kind: Any, value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: {shown(value)} must be a mapping.")
    _, item = get_args(kind) or (str, Any)
    for name in value:
        _text(str, name, f"{where}: the key")
    return {name: convert(item, each, dotted(where, name)) for name, each in value.items()}


def _either(kind: Any, value: Any, where: str) -> Any:
    """The first type that takes the value; if none does, the first one says what is wrong."""
    if value is None and type(None) in get_args(kind):
        return None
    refusals = []
    for each in get_args(kind):
        try:
            return convert(each, value, where)
        except UserError as error:
            refusals.append(error)
    raise refusals[0]


_READERS: dict[Any, Callable[[Any, Any, str], Any]] = {
    int: _whole,
    float: _number,
    bool: _flag,
    str: _text,
    type(None): _nothing,
    typing.Literal: _literal,
    list: _list,
    tuple: _tuple,
    dict: _mapping,
    Mapping: _mapping,
    typing.Union: _either,
    types.UnionType: _either,
}
