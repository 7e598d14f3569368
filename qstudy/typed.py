"""Values from a file, held against the types that the code declares: `5` is an int, `true` and `"5"` are not."""

import json
import os
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from annotated_types import Ge, Le, Lt
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from qstudy.errors import UserError

Size = Annotated[int, Ge(1), Le(2**31 - 1)]
Count = Annotated[int, Ge(0), Le(2**31 - 1)]
Few = Annotated[int, Ge(1), Le(1000)]
Width = Annotated[int, Ge(1), Le(2**16)]
Share = Annotated[float, Ge(0), Le(1)]
Dropout = Annotated[float, Ge(0), Lt(1)]


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
        place = ".".join([where, *map(str, first["loc"])])
        raise UserError(f"{place}: {_complaint(first)}.") from error
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
            return _odd_one(each, f"{place}.{key}")
    return place, value


def _complaint(error: Mapping[str, Any]) -> str:
    if error["type"] == "missing":
        return "this field is missing"
    if error["type"] == "unexpected_keyword_argument":
        return "there is no such field"
    if error["type"] == "literal_error":
        expected = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        return f"{_short(error['input'])} is not one of {expected}"
    return f"{_short(error['input'])} {error['msg'].removeprefix('Input ').replace('an object', 'a mapping')}"


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


def _short(value: Any, most: int = 60) -> str:
    text = (
        repr(value) if not isinstance(value, list | dict) else f"a {'list' if isinstance(value, list) else 'mapping'}"
    )
    return text if len(text) <= most else f"{text[:most]}..."
