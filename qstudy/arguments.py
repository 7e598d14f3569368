"""Configurations from the command line: `--config F.yaml`, and `--section.field VALUE` for whatever stands in it."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast, get_args

from qstudy.errors import UserError, naming
from qstudy.fields import Text, fill, merged, type_hints
from qstudy.yaml_file import load_yaml, parse_yaml

CONFIG = "--config"
TEXTS: tuple[Any, ...] = (str, Text, Path)
"""Types of fields that take a text as it is given: a path may look like YAML."""
TEXTS_OR_NONE: tuple[Any, ...] = tuple(kind | None for kind in TEXTS)
NONE = "null"

given_files: list[Path] = []
"""What `--config` named when this process read its arguments: no command writes over it."""


def read_configurations(hints: Mapping[str, Any], arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Take a command's configurations out of its arguments; later arguments override earlier ones.

    Args:
        hints: parameter of the command -> its type; the dataclasses among them are the configurations.
        arguments: of the command line.

    Returns:
        Parameter -> its configuration, and the other arguments.

    Raises:
        UserError: a file or value cannot be read, a field is unknown, missing or wrong.
    """
    rest, configured = list(arguments), {}
    for parameter, kind in hints.items():
        if is_dataclass(kind):
            values, files, rest = _split(kind, rest)
            given_files[:] = map(Path, files)
            with naming(", ".join(files)) if files else nullcontext():
                configured[parameter] = fill(cast(type[Any], kind), values)
    return configured, rest


def _split(kind: Any, arguments: Sequence[str]) -> tuple[dict[str, Any], list[str], list[str]]:
    """The values of one configuration, the files they come from, and the arguments that are none of its options."""
    values: dict[str, Any] = {}
    files = []
    rest, left = [], iter(arguments)
    for argument in left:
        option, given, value = argument.partition("=")
        path = option[2:].split(".")
        if option != CONFIG and not (option.startswith("--") and path[0] in type_hints(kind)):
            rest.append(argument)
            continue
        value = value if given else next(left, "")
        if not value or (value.startswith("--") and not given):
            raise UserError(f"{option}: the value is missing.")
        if option == CONFIG:
            files.append(value)
        changes = load_yaml(Path(value)) if option == CONFIG else _changes(kind, values, path, option, value)
        values = merged(values, changes)
    return values, files, rest


def _changes(kind: Any, values: Mapping[str, Any], path: Sequence[str], option: str, text: str) -> Any:
    """What sets the field at `path` to what `text` stands for: that field alone of a section, all of a mapping.

    Args:
        kind: the type of `values`.
        values: what is there already.
        path: names of fields, from the outermost on; none: `text` is the value.
        option: as it was given, for messages.
        text: YAML, or the text itself where the field is one.
    """
    if not path:
        as_it_is = kind in TEXTS or (kind in TEXTS_OR_NONE and text != NONE)
        return text if as_it_is else parse_yaml(text, option)
    name, *deeper = path
    section = is_dataclass(kind)
    inner = type_hints(kind).get(name, Any) if section else (*get_args(kind), Any, Any)[1]
    there = values.get(name, _default(kind, name) if section else None)
    changed = _changes(inner, there if isinstance(there, Mapping) else {}, deeper, option, text)
    return {name: changed} if section else {**values, name: changed}


def _default(kind: Any, name: str) -> Any:
    """The value of a field of options that nobody gave."""
    for field in fields(kind):
        if field.name == name and not is_dataclass(type_hints(kind)[name]) and callable(field.default_factory):
            return field.default_factory()
    return None
