"""Studies: read, checked and planned; nothing is trained."""

from pathlib import Path
from random import Random
from typing import Any

from . import fields, yaml_text
from .case import Attempt
from .mutate import NAN, Change, mutated
from .originals import ROOT, Originals

FILE = "study.yaml"
WORDS: dict[str, list[Any]] = {
    "study": ["../x", "", ".", "..", "a/b", 3, None, "a" * 300, "\u0663", "a\n", "-x", "a b", True],
    "trials": [0, -1, 1.5, True, "3", NAN, 10**30, None, [1], "1:30"],
    "candidates": [0, -1, 1.5, True, 10**30, "x", []],
    "objectives": [3, [], ["zzz"], [3], ["size_bytes"], ["wer", "wer"], "zzz", None, {}, [["wer"]], ["wer", "latency_ms"]],
    "sampler": [3, "zzz", {"name": "nsga2", "population": 1}, {"name": []}, {"seed": -1}, {"seed": 10**30}, [], {"zzz": 1},
                {"startup": 1.5}],
    "budgets": [3, [], {"size_bytes": -5}, {"size_bytes": NAN}, {"latency_ms": "x"}, {"latency_ms": 1, "accelerator": "zzz"},
                {"zzz": 1}, {"size_bytes": 0}, {"size_bytes": True}, {"latency_ms": float("inf")}, {"accelerator": 3},
                {"size_bytes": 10**30}, {"latency_ms": 1, "accelerator": []}],
    "pruning": [3, [], {"startup": -1}, {"warmup": 1.5}, {"zzz": 1}, "x"],
    "base": [3, [], "nowhere.yaml", "../../etc/passwd", {"from": 3}, {"from": "nowhere.yaml"}, None, {}, "study.yaml",
             {"data": {}}, {"from": "study.yaml"}, {"from": "/dev/null"}],
    "like": ["study.yaml", "nowhere.yaml", 3, [], {}, ".", "/dev/null"],
    "grid": [3, "x", [3], [[]], {"policy": []}, {"policy": {"name": []}}, {"zzz": [1]}, {"seed": [-1]}, {"seed": [[1]]},
             {"policy": {"name": "ptq", "layers": {f"encoder.lstm.{i % 2}" + "*" * (i // 2): {"weight": [2, 3, 4, 8] * 4}
                                                   for i in range(14)}}},
             {"seed": list(range(100_000))}, {"policy": [{"name": "ptq"}, 3]}, {"policy": "ptq"}, {"policy": [None]},
             {"policy": {"name": "ptq", "layers": "x"}}, {"training": [1]}, {3: [1]},
             {"policy": {"name": "ptq", "layers": {"*": {"weight": [[4]]}}}}, {"policy": {"name": "ptq", "layers": {"*": [1]}}}],
}  # fmt: skip
WORDS["space"] = WORDS["grid"]
FINE: dict[str, list[Any]] = {
    "trials": [None], "objectives": [["wer", "latency_ms"]], "budgets": [{"size_bytes": 10**30}],
    "pruning": [], "like": [{}, []], "grid": [{"seed": list(range(100_000))}], "space": [{"seed": list(range(100_000))}],
}  # fmt: skip
"""What need not be refused."""


def make(random: Random, originals: Originals, folder: Path) -> Attempt:
    """Plan a study."""
    content, what, invalid = random.choice([_field, _word, _word, _text, _committed])(random, originals)
    (folder / FILE).write_bytes(content)
    (folder / "sweeps").symlink_to(ROOT / "sweeps")
    argv = ["sweep", FILE, "--root", "studies"]
    return Attempt(argv, what, invalid, named=FILE, entry="tests.fuzz.server:plan_only")


def original(originals: Originals) -> dict[str, Any]:
    """A small study."""
    smoke = originals.yaml("sweeps/smoke.yaml")
    return {**smoke, "base": originals.run}


def _field(random: Random, originals: Originals) -> tuple[bytes, str, bool]:
    study, change = mutated(random, original(originals), ("grid", "space", "budgets", "sampler"))
    return yaml_text.dumped(study), str(change), _nonsense(change)


def _committed(random: Random, originals: Originals) -> tuple[bytes, str, bool]:
    name = random.choice(["quickstart", "digits", "digits-search"])
    study = originals.yaml(f"sweeps/{name}.yaml")
    if isinstance(study["base"], str):
        study["base"] = f"sweeps/{study['base']}"
    study, change = mutated(random, study)
    return yaml_text.dumped(study), f"{name} {change}", _nonsense(change)


def _nonsense(change: Change) -> bool:
    if change.path[0] == "base" and len(change.path) > 1:
        return fields.nonsense(Change(change.path[1:], change.how, change.old, change.new))
    if change.how == "type" and change.path[0] not in ("grid", "space", "base"):
        return change.new is not None and not (change.path[0] == "objectives" and change.new == {})
    if change.how == "number":
        return change.new != change.new or change.new < 0
    return change.how == "unknown" and change.path[0] not in ("base",)


def _word(random: Random, originals: Originals) -> tuple[bytes, str, bool]:
    """A value that someone might write."""
    key = random.choice(list(WORDS))
    value = random.choice(WORDS[key])
    invalid = not any(value is fine or value == fine for fine in FINE.get(key, []))
    return yaml_text.dumped({**original(originals), key: value}), f"{key} {value!r:.60}", invalid


def _text(random: Random, originals: Originals) -> tuple[bytes, str, bool]:
    return yaml_text.rewritten(random, original(originals))
