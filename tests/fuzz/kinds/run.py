"""Run configurations: priced, and those that could be meant seriously are trained for a step."""

from pathlib import Path
from random import Random
from typing import Any

from .. import fields, yaml_text
from ..case import Attempt
from ..mutate import mutated, put
from ..originals import LAYERS, Originals
from ..values import values

FILE = "run.yaml"
COSTLY = ("training", "finetune", "trainer", "data", "features", "model", "start")
"""Sections in which a large number is an order to work for hours, not nonsense."""
TABLE = values("run")


def make(random: Random, originals: Originals, folder: Path) -> Attempt:
    """Price a configuration, or train it for a step."""
    (folder / "exits.py").write_text("import sys\nsys.exit(0)\n")
    (folder / "broken.py").write_text("def (:\n")
    (folder / "raises.py").write_text("class E:\n    def __init__(self, *a, **k):\n        1 / 0\n")
    ways = [_field, _field, _field, _policy, _policy, _text, _committed]
    content, what, invalid, costly = random.choice(ways)(random, originals)
    (folder / FILE).write_bytes(content)
    if costly or random.random() < 0.4:
        return Attempt(["simulate", FILE, "--json"], what, invalid, named=FILE)
    argv = ["train", "--config", FILE, "--out", "o", "--track", "false"]
    return Attempt([*argv, "--training.steps", "1", "--finetune.steps", "1"], f"train {what}", invalid)


def _field(random: Random, originals: Originals) -> tuple[bytes, str, bool, bool]:
    config, change = mutated(random, originals.run)
    costly = change.how in ("number", "longer") and change.path[0] in COSTLY
    costly |= change.path[0] == "trainer" or change.path[-1] in ("steps", "track")  # what the command line says again
    return yaml_text.dumped(config), str(change), fields.nonsense(change), costly


def _policy(random: Random, originals: Originals) -> tuple[bytes, str, bool, bool]:
    """A policy that someone might write."""
    known = random.random() < 0.7
    policy: dict[str, Any] = {"name": random.choice(TABLE["names" if known else "unknown"]), "layers": LAYERS}
    for option in random.sample(list(TABLE["options"]), random.choice([0, 1, 1, 2])):
        policy[option] = random.choice(TABLE["options"][option])
    start = originals.run["start"] if random.random() < 0.8 else "scratch"
    config = put(put(originals.run, ("policy",), policy), ("start",), start)
    return yaml_text.dumped(config), f"policy {policy}", not known, False


def _text(random: Random, originals: Originals) -> tuple[bytes, str, bool, bool]:
    content, what, invalid = yaml_text.rewritten(random, originals.run)
    return content, what, invalid, False


def _committed(random: Random, originals: Originals) -> tuple[bytes, str, bool, bool]:
    """A change of a file that comes with the project; priced alone, for it trains for hours."""
    name = random.choice(["commands", "digits", "librispeech"])
    config, change = mutated(random, originals.yaml(f"sweeps/base/{name}.yaml"))
    return yaml_text.dumped(config), f"{name} {change}", fields.nonsense(change), True
