"""Plain values (YAML, options, a checkpoint's configuration) as the fields of dataclasses, of their types and in their
limits.

The limits stand in the types: `Annotated[int, Ge(1)]`. Nothing is imported and no text is evaluated, so that the values
may come from strangers.
"""

import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Le, MinLen

from qstudy.errors import UserError
from qstudy.typed import Share as Share
from qstudy.typed import checked

T = TypeVar("T")

Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
"""What NumPy's generators and Lightning take."""
Steps = Annotated[int, Ge(1), Le(10**8)]
Text = Annotated[str, MinLen(1)]


def fill(cls: type[T], values: Any, where: str = "") -> T:
    """An instance of a dataclass.

    Args:
        cls: the dataclass; its fields may be dataclasses, and call `check_fields` themselves.
        values: field -> value.
        where: the dotted name of the field that it becomes, for messages.

    Raises:
        UserError: a field is unknown, missing, of another type, or out of its limits.
    """
    made: Any = cls
    hints, required = type_hints(made), _required(made)
    if not isinstance(values, Mapping):
        said = f"{where}: this" if where else "The configuration"
        raise UserError(f"{said} must be a mapping with the fields {', '.join(hints)}.")
    if unknown := [str(name) for name in values if name not in hints]:
        raise UserError(f"{dotted(where, unknown[0][:60])}: there is no such field; fields are {', '.join(hints)}.")
    sections = {name: section for name, hint in hints.items() if (section := _section(hint))}
    lacking: dict[str, Any] = {name: {} for name in required if name in sections}  # a field of theirs
    filled = {
        name: fill(sections[name], value, dotted(where, name)) if name in sections and value is not None else value
        for name, value in {**lacking, **values}.items()
    }
    if missing := [name for name in required if name not in filled]:
        raise UserError(f"{dotted(where, missing[0])}: this field is missing.")
    for name, value in filled.items():
        if name not in sections or value is None:
            filled[name] = checked(hints[name], value, dotted(where, name))
    try:
        return cls(**filled)
    except UserError as error:  # the class knows its fields' names, not its own
        raise UserError(dotted(where, str(error))) from error


def check_fields(instance: Any) -> None:
    """Raise UserError unless a dataclass's fields have the types and limits that it declares; for `__post_init__`."""
    for name, hint in type_hints(instance.__class__).items():
        if not _section(hint):
            checked(hint, getattr(instance, name), name)


def updated(cls: Any, values: Mapping[str, Any], changes: Any) -> dict[str, Any]:
    """`values` with `changes`, as a later file changes an earlier one: sections (dataclasses) field by field."""
    merged, hints = dict(values), type_hints(cls)
    for name, value in changes.items():
        there, section = merged.get(name, {}), _section(hints.get(name))
        if section and isinstance(value, Mapping) and isinstance(there, Mapping):
            value = updated(section, there, value)
        merged[name] = value
    return merged


@cache
def type_hints(cls: Any) -> dict[str, Any]:
    """Field -> its type, limits included."""
    return typing.get_type_hints(cls, include_extras=True)


def dotted(where: str, name: str) -> str:
    """The name of a field inside another."""
    return f"{where}.{name}" if where else name


def _section(hint: Any) -> Any:
    """The dataclass that a field holds, perhaps among other things; None: it holds none."""
    kinds = (hint, *typing.get_args(hint))
    return next((each for each in kinds if isinstance(each, type) and is_dataclass(each)), None)


def _required(cls: Any) -> list[str]:
    return [each.name for each in fields(cls) if each.default is MISSING and each.default_factory is MISSING]
