"""Changes of plain values (what JSON and YAML hold) and of bytes."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from .values import values

Path = tuple[str | int, ...]

COMMON = values("common")


@dataclass(frozen=True)
class Change:
    """What was done to a value."""

    path: Path
    how: str
    """`type`, `number`, `text`, `name`, `removed`, `unknown`, `shorter`, `longer`, `deep`."""
    old: Any
    new: Any

    def __str__(self) -> str:
        where = ".".join("*" if isinstance(key, int) else key for key in self.path) or "(all)"
        return f"{where} {self.how}: {self.new!r:.60}"


def nodes(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value inside a value, itself first."""
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from nodes(inner, (*path, key))


def mutated(random: Random, value: Any, prefer: tuple[str, ...] = ()) -> tuple[Any, Change]:
    """A copy of a mapping with one change, half of the time below one of the keys in `prefer`."""
    value = copy.deepcopy(value)
    found = [(path, old) for path, old in nodes(value) if path]
    chosen = [each for each in found if each[0][0] in prefer] if prefer and random.random() < 0.5 else found
    keys = sorted({each[0][0] for each in chosen or found}, key=str)  # long lists of layers do not crowd out the rest
    key = random.choice(keys)
    path, old = random.choice([each for each in found if each[0][0] == key])
    change = _change(random, path, old)
    return _applied(value, change), change


def shuffled(random: Random, value: dict[str, Any]) -> dict[str, Any]:
    """The same fields in another order."""
    return dict(random.sample(list(value.items()), len(value)))


def put(value: Any, path: Path, new: Any) -> Any:
    """A copy of a value with another one in the place `path`, which is made where it is missing."""
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner.setdefault(key, {}) if isinstance(inner, dict) else inner[key]
    inner[path[-1]] = new
    return value


def _change(random: Random, path: Path, old: Any) -> Change:
    ways = ["type", "type", "removed"]
    if isinstance(old, int | float) and not isinstance(old, bool):
        ways += ["number"] * 4
    elif isinstance(old, str):
        ways += ["text", "text", "name", "name"]
    elif isinstance(old, dict):
        ways += ["unknown", "unknown", "deep"]
    elif isinstance(old, list):
        ways += ["shorter", "longer", "deep"]
    how = random.choice(ways)
    return Change(path, how, old, _new(random, how, old))


def _new(random: Random, how: str, old: Any) -> Any:
    match how:
        case "type":
            return random.choice([value for value in COMMON["others"] if _sort(value) != _sort(old)])
        case "number":
            return random.choice([value for value in COMMON["numbers"] if value != old])
        case "text":
            return random.choice(COMMON["texts"])
        case "name":
            return random.choice(COMMON["names"])
        case "unknown":
            key = random.choice(
                ["zzz", "", "self", "name ", "__class__", "class_path", "init_args", "Weight", "\u0663"]
            )
            return {**old, key: random.choice([1, "x", None, [], {}])}
        case "shorter":
            return old[:-1]
        case "longer":
            return [*old, *old[-1:]] or [1]
        case "deep":
            return random.choice([deep(50), deep(300), {"a": deep(100)}])
    return None


def deep(levels: int) -> list[Any]:
    """A list in a list in a list."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def _applied(value: Any, change: Change) -> Any:
    inner = value
    for key in change.path[:-1]:
        inner = inner[key]
    if change.how == "removed":
        del inner[change.path[-1]]
    else:
        inner[change.path[-1]] = change.new
    return value


def _sort(value: Any) -> str:
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def bytes_changed(random: Random, content: bytes) -> tuple[bytes, str]:
    """Cut short, overwritten, with bits flipped, lengthened, or nothing but noise."""
    how = random.choice(["cut", "cut", "flipped", "flipped", "overwritten", "lengthened", "removed", "noise", "empty"])
    start = random.randrange(len(content))
    if random.random() < 0.5:
        start = min(start, random.randrange(200))  # headers
    changed = bytearray(content)
    match how:
        case "cut":
            changed = changed[:start]
        case "flipped":
            for _ in range(random.choice([1, 1, 3, 20])):
                changed[min(len(changed) - 1, start + random.randrange(40))] ^= 1 << random.randrange(8)
        case "overwritten":
            changed[start : start + 8] = random.choice(
                [b"\xff" * 8, b"\0" * 8, random.randbytes(8), b"\x7f" + b"\xff" * 7]
            )
        case "lengthened":
            changed += random.randbytes(random.choice([1, 100, 10_000]))
        case "removed":
            del changed[start : start + random.choice([1, 7, 100])]
        case "noise":
            changed = bytearray(random.randbytes(random.choice([1, 8, 100, 5000])))
        case "empty":
            changed = bytearray()
    return bytes(changed), f"bytes {how}"
