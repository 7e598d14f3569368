"""All YAML that the program reads: safe, strict and bounded.

Refused are tags, keys that occur twice, keys that are no text, aliases inside their own anchor, and files that would
become too large. Numbers are those of YAML 1.2 where 1.1 surprises: `1:30` is a
text (not 90), `1e-3` a number; dates are texts.
"""

import re
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.composer import Composer
from yaml.constructor import ConstructorError
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode

from qstudy.errors import UserError

MOST_BYTES = 1_000_000
MOST_VALUES = 20_000
"""Values in a file, each alias counted with all that it stands for."""
MOST_LEVELS = 50
MOST_DIGITS = 100

_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)\Z"),
    "tag:yaml.org,2002:float": re.compile(
        r"(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
    ),
}
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_REPLACED = {*_NUMBERS, "tag:yaml.org,2002:timestamp"}

if yaml.__with_libyaml__:

    class _Safe(Composer, yaml.CSafeLoader):
        """libyaml's parser under Python's composer, which can count."""

        def __init__(self, stream: Any) -> None:
            yaml.CSafeLoader.__init__(self, stream)
            Composer.__init__(self)

else:  # slower, the same
    _Safe = yaml.SafeLoader  # type: ignore[assignment, misc]


class Loader(_Safe):
    """The safe loader with the limits above; raises `yaml.YAMLError`."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._values = self._levels = 0
        self._sizes: dict[str, int] = {}  # anchor -> values that it stands for, once it is whole

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: Any = self.peek_event()
        if self.check_event(AliasEvent):
            if event.anchor in self.anchors and event.anchor not in self._sizes:
                _refuse(f"*{event.anchor} refers to itself", event)
            self._count(self._sizes.get(event.anchor, 0), event)
            return super().compose_node(parent, index)
        if event.tag is not None:
            _refuse(f"the tag {event.tag!r} is not supported", event)
        if "\0" in getattr(event, "value", ""):
            _refuse("a text holds a NUL character; remove it", event)
        before = self._values
        self._count(1, event)
        self._levels += 1
        if self._levels > MOST_LEVELS:
            _refuse(f"it is nested more than {MOST_LEVELS} levels deep", event)
        node = super().compose_node(parent, index)
        self._levels -= 1
        if event.anchor is not None:
            self._sizes[event.anchor] = self._values - before
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag not in (_TEXT, _MERGE):
                said = f"the key {key.value!r}" if isinstance(key, ScalarNode) else "a key"
                _refuse(f"{said} is not text; put it in quotes", key)
            if key.value in seen:
                _refuse(f"the key {key.value!r} occurs twice", key)
            seen.add(key.value)
        return node

    def construct_yaml_int(self, node: ScalarNode) -> int:
        if len(node.value) > MOST_DIGITS:
            _refuse(f"a number has more than {MOST_DIGITS} digits", node)
        return super().construct_yaml_int(node)

    def _count(self, values: int, event: Any) -> None:
        self._values += values
        if self._values > MOST_VALUES:
            _refuse(f"it holds more than {MOST_VALUES:,} values", event)


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for first, resolvers in Loader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBERS.items():
    Loader.add_implicit_resolver(_tag, _pattern, list("-+.0123456789"))
Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)


def _refuse(problem: str, place: Any) -> NoReturn:
    """Args: what is wrong; the event or node where."""
    raise ConstructorError(None, None, problem, place.start_mark)


def parse_yaml(text: str, what: str) -> Any:
    """The value of a YAML text.

    Args:
        text: one document.
        what: the file or option that it comes from, for messages.

    Raises:
        UserError: it is no YAML, or breaks one of the rules above.
    """
    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{what} is not valid YAML ({line}{error.problem or error.context}).") from error
    except yaml.YAMLError as error:
        raise UserError(f"{what} is not valid YAML: {' '.join(str(error).split())}.") from error
    except (ValueError, OverflowError) as error:  # of numbers
        raise UserError(f"{what} is not valid YAML: {error}.") from error


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping of fields.

    Raises:
        UserError: the file is missing, too large, not UTF-8 or not a YAML mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UserError(f"{path} holds more than {MOST_BYTES:,} bytes, which is too much for a configuration.")
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"Cannot read {path}: it is not UTF-8 text.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.") from error
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold a YAML mapping of fields.")
    return values
