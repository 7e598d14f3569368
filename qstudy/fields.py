"""Plain values (YAML, options, a model file's header) as the fields of dataclasses, of their types and in their limits.

`5` is an int, `true` and `"5"` are not; limits stand in the types: `Annotated[int, Ge(1)]`. Nothing is imported and no
text is evaluated, so that the values may come from strangers.
"""

import json
import os
import typing
from collections.abc import Mapping
from dataclasses import MISSING, InitVar, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Le, Lt, MaxLen, MinLen
from pydantic import StringConstraints, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from qstudy.errors import UserError, meant

T = TypeVar("T")

Size = Annotated[int, Ge(1), Le(2**31 - 1)]
Count = Annotated[int, Ge(0), Le(2**31 - 1)]
Few = Annotated[int, Ge(1), Le(1000)]
Frames = Annotated[int, Ge(0), Le(4096)]
"""That a layer sees beside each: a model file may ask for them without holding a weight for any."""
Units = Annotated[int, Ge(1), Le(2**16)]
"""Outputs of a layer."""
Share = Annotated[float, Ge(0), Le(1)]
Dropout = Annotated[float, Ge(0), Lt(1)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
"""What NumPy's generators and Lightning take."""
Steps = Annotated[int, Ge(1), Le(10**8)]
Text = Annotated[str, MinLen(1)]
Name = Annotated[str, MinLen(1), MaxLen(200), StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
"""Of what is shown in a line of a terminal."""

NAMING = ("name", "corpus")
"""What says which part a mapping is of; all else in it are options of that part."""
ORDERED = ("layers",)
"""Fields that may be mappings of patterns, of which the last match wins."""
WHOLE = ("test",)
"""Mappings that replace each other: who names test sets of his own wants no others."""


def with_order(values: Any, name: str = "") -> Any:
    """JSON-able values, of a field of this name, so that equality and hashes tell apart other orders of patterns.

    A mapping of patterns that are not in alphabetical order becomes a list of pairs; all else stays, so that names
    which were made of hashes stay, too.
    """
    if isinstance(values, Mapping):
        inner = {key: with_order(value, str(key)) for key, value in values.items()}
        return [*map(list, inner.items())] if name in ORDERED and [*inner] != sorted(inner, key=str) else inner
    return [with_order(value, name) for value in values] if isinstance(values, list | tuple) else values


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
        place = dotted(where, unknown[0][:60])
        said = f"{place}: there is no such field{meant(unknown[0], hints)}"
        raise UserError(f"{said}; fields are {', '.join(hints)}.")
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


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, as a later file or option changes an earlier one: mappings key by key, all else replaced.

    A part (`{name: ..., **options}`, `{corpus: ..., **options}`) that gets another name is replaced as a whole: the
    options were the old one's. So are parts that a preset takes the place of, and the test sets.
    """
    if any(_differs(base.get(key), changes.get(key)) for key in NAMING) or changes.get("preset") is not None:
        return dict(changes)
    found = dict(base)
    for key, value in changes.items():
        there, inner = found.get(key), key not in WHOLE and isinstance(value, Mapping)
        found[key] = merged(there, value) if inner and isinstance(there, Mapping) else value
    return found


def _differs(old: Any, new: Any) -> bool:
    return None not in (old, new) and old != new


@cache
def type_hints(cls: Any) -> dict[str, Any]:
    """Field -> its type, limits included."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {name: hint.type if isinstance(hint, InitVar) else hint for name, hint in hints.items()}


def dotted(where: str, name: str) -> str:
    """The name of a field inside another."""
    return f"{where}.{name}" if where else name


def _section(hint: Any) -> Any:
    """The dataclass that a field holds, perhaps among other things; None: it holds none."""
    kinds = (hint, *typing.get_args(hint))
    return next((each for each in kinds if isinstance(each, type) and is_dataclass(each)), None)


def _required(cls: Any) -> list[str]:
    return [each.name for each in fields(cls) if each.default is MISSING and each.default_factory is MISSING]


def checked(hint: Any, value: Any, where: str) -> Any:
    """`value` as JSON has it, if it is of the type `hint`; lists become the tuples that the type asks for.

    Args:
        hint: any type, `Annotated[int, Ge(1)]` and dataclasses included; one that JSON has no form of takes anything.
        value: numbers, texts, lists and mappings.
        where: what the value is, for error messages.

    Raises:
        UserError: it is of another type, out of its range, or not finite.
    """
    try:
        return _adapter(hint).validate_json(json.dumps(value, allow_nan=False, default=os.fspath), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = dotted(where, ".".join(map(str, first["loc"])))
        raise UserError(f"{place.rstrip('.')}: {_complaint(first)}.") from error
    except UserError as error:  # a dataclass's own check
        raise UserError(f"{where}: {error}") from error
    except PydanticUserError:
        return value
    except (TypeError, ValueError, RecursionError) as error:
        place, odd = _odd_one(value, where)
        raise UserError(f"{place}: {_short(odd)} is not a finite number, text, list or mapping.") from error


def _odd_one(value: Any, place: str) -> tuple[str, Any]:
    """The innermost value that JSON has no form of, and where it stands."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        try:
            json.dumps(each, allow_nan=False, default=os.fspath)
        except (TypeError, ValueError):
            return _odd_one(each, dotted(place, str(key)))
    return place, value


def _complaint(error: Mapping[str, Any]) -> str:
    if error["type"] == "missing":
        return "this field is missing"
    if error["type"] == "unexpected_keyword_argument":
        return "there is no such field"
    if error["type"] == "literal_error":
        expected = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        return f"{_short(error['input'])} is not one of {expected}"
    if error["type"] in ("list_type", "tuple_type") and isinstance(error["input"], str | int | float):
        return f"{_short(error['input'])} should be a list: [{str(error['input'])[:60]}]"
    said = error["msg"].removeprefix("Input ").removeprefix("Value error, ").replace("an object", "a mapping")
    said = said.replace("valid array", "valid list")
    return f"{_short(error['input'])} {said}"


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


def _short(value: Any, most: int = 60) -> str:
    text = (
        repr(value) if not isinstance(value, list | dict) else f"a {'list' if isinstance(value, list) else 'mapping'}"
    )
    return text if len(text) <= most else f"{text[:most]}..."
