"""Run configurations: priced, and those that could be meant seriously are trained for a step."""

from pathlib import Path
from random import Random
from typing import Any

from . import fields, yaml_text
from .case import Attempt
from .mutate import NAN, mutated, put
from .originals import LAYERS, POLICIES, Originals

FILE = "run.yaml"
COSTLY = ("training", "finetune", "trainer", "data", "features", "model", "start")
"""Sections in which a large number is an order to work for hours, not nonsense."""
OPTIONS: dict[str, list[Any]] = {
    "weight_range": ["max", "percentile", "mse", "learned", "zzz", 3, None],
    "activation_range": ["max", "percentile", "mse", "kl", "ema", "learned", "zzz", []],
    "rounding": ["nearest", "gptq", "zzz", None],
    "gradient": ["bfloat16", "float32", "zzz", 3],
    "symmetric": [True, False, "x", 3, None],
    "edges": [8, 4, -1, NAN, "x", 10**30],
    "snap_from": [0, 1, -1, 2, NAN, "x"],
    "compress_every": [0.2, 0, -1, NAN, 2, "x"],
    "freeze_from": [0.5, -1, 3, NAN, "x"],
    "base": ["native_int", "mixed", "encoder_only", "fuzz_evil.E", "zzz", 3, {"name": "ptq"}],
    "layers": [LAYERS, {}, {"zzz": {"weight": 4}}, {"*": {"weight": 4.0}}, {"*": {"weight": True}}, {"*": 4}, [], "x", None,
               {"*": {"accumulator": 16}}, {"*": {"grid": "codebook"}}, {"*": {"placement": "zzz"}}, {3: {"weight": 4}},
               {"*": {"granularity": "group", "group": 0}}, {"*": {"activation": 8, "weight": "4"}}, {"[": {"weight": 4}}],
    "encoder": [{"weight": 4}, {}, 3, "x", {"zzz": 1}, {"weight": NAN}],
    "decoder": [{"weight": 4}, {}, 3, "x", {"zzz": 1}, {"weight": NAN}],
}  # fmt: skip
NAMES = [*{policy["name"] for policy in POLICIES.values()}, "mixed", "encoder_only", "zzz", "fuzz_evil.E", "exits.E",
         "broken.E", "raises.E", "os.path.join", "os.zzz", ".", "", 3, None, [], "json.JSONEncoder"]  # fmt: skip


def make(random: Random, originals: Originals, folder: Path) -> Attempt:
    """Price a configuration, or train it for a step."""
    (folder / "exits.py").write_text("import sys\nsys.exit(0)\n")
    (folder / "broken.py").write_text("def (:\n")
    (folder / "raises.py").write_text("class E:\n    def __init__(self, *a, **k):\n        1 / 0\n")
    content, what, invalid, costly = random.choice([_field, _field, _field, _policy, _policy, _text, _committed])(random, originals)
    (folder / FILE).write_bytes(content)
    if costly or random.random() < 0.4:
        return Attempt(["simulate", FILE, "--json"], what, invalid, named=FILE)
    argv = ["train", "--config", FILE, "--out", "o", "--track", "false"]
    return Attempt([*argv, "--training.steps", "1", "--finetune.steps", "1"], f"train {what}", invalid)


def _field(random: Random, originals: Originals) -> tuple[bytes, str, bool, bool]:
    config, change = mutated(random, originals.run)
    large = change.how in ("number", "longer") and change.path[0] in COSTLY
    masked = change.path[-1] in ("steps", "track")  # what the command line says again
    return yaml_text.dumped(config), str(change), fields.nonsense(change), large or masked or change.path[0] == "trainer"


def _policy(random: Random, originals: Originals) -> tuple[bytes, str, bool, bool]:
    """A policy that someone might write."""
    policy: dict[str, Any] = {"name": random.choice(NAMES), "layers": LAYERS}
    for option in random.sample(list(OPTIONS), random.choice([0, 1, 1, 2])):
        policy[option] = random.choice(OPTIONS[option])
    bad = policy["name"] in NAMES[-12:] and policy["name"] not in ("mixed", "encoder_only")
    start = originals.run["start"] if random.random() < 0.8 else "scratch"
    config = put(put(originals.run, ("policy",), policy), ("start",), start)
    return yaml_text.dumped(config), f"policy {policy}", bad, False


def _text(random: Random, originals: Originals) -> tuple[bytes, str, bool, bool]:
    content, what, invalid = yaml_text.rewritten(random, originals.run)
    return content, what, invalid, False


def _committed(random: Random, originals: Originals) -> tuple[bytes, str, bool, bool]:
    """A change of a file that comes with the project; priced alone, for it trains for hours."""
    name = random.choice(["commands", "digits", "librispeech"])
    config, change = mutated(random, originals.yaml(f"sweeps/base/{name}.yaml"))
    return yaml_text.dumped(config), f"{name} {change}", fields.nonsense(change), True
