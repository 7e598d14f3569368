"""Studies: read, checked and planned; nothing is trained."""

from pathlib import Path
from random import Random
from typing import Any

from .. import fields, yaml_text
from ..case import Attempt
from ..mutate import Change, mutated
from ..originals import ROOT, Originals
from ..values import values

FILE = "study.yaml"
TABLE = values("study")


def make(random: Random, originals: Originals, folder: Path) -> Attempt:
    """Plan a study."""
    content, what, invalid = random.choice(WAYS)(random, originals)
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
        return change.new not in (None, "", [], {})  # nothing is said
    if change.how == "number":
        return change.new != change.new or change.new < 0
    return change.how == "unknown" and change.path[0] not in ("base",)


def _word(random: Random, originals: Originals) -> tuple[bytes, str, bool]:
    """A value that someone might write."""
    invalid = random.random() < 0.9
    listed = TABLE["refused" if invalid else "fine"]
    key = random.choice(list(listed))
    value = random.choice(listed[key])
    return yaml_text.dumped({**original(originals), key: value}), f"{key} {value!r:.60}", invalid


def _huge(random: Random, originals: Originals) -> tuple[bytes, str, bool]:
    """More combinations than anyone can try."""
    layers = {"encoder.lstm." + "?" + "*" * i: {"weight": [2, 3, 4, 8, 2, 3]} for i in range(14)}
    templates: dict[str, Any] = {
        "product": {"policy": {"name": "ptq", "layers": layers}},
        "seeds": {"seed": list(range(100_000))},
        "templates": [{"seed": [i]} for i in range(300)],
    }
    how = random.choice(list(templates))
    return yaml_text.dumped({**original(originals), "grid": templates[how]}), f"huge {how}", how == "product"


def _text(random: Random, originals: Originals) -> tuple[bytes, str, bool]:
    return yaml_text.rewritten(random, original(originals))


WAYS = [*[_field] * 3, *[_word] * 4, *[_text] * 2, *[_committed] * 2, _huge]
