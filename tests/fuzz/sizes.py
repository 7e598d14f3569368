"""Models without weights."""

from pathlib import Path
from random import Random
from typing import Any

from . import yaml_text
from .case import Attempt
from .mutate import Change, mutated
from .originals import Originals

FILE = "sizes.yaml"
SIZES: dict[str, Any] = {
    "name": "mine",
    "beam": 2,
    "layers": [
        {"name": "encoder.lstm", "kind": "lstm", "inputs": 80, "hidden": 64, "repeat": 2, "bidirectional": False, "every_ms": 40.0},
        {"name": "encoder.block", "kind": "conformer", "width": 32, "feed_forward": 64, "heads": 4, "kernel": 7, "context": 20,
         "repeat": 2, "every_ms": 40.0, "share": 0.5, "frames": 4},
        {"name": "predictor.embedding", "kind": "embedding", "rows": 30, "columns": 16, "per_label": 1.0},
        {"name": "joiner.output", "kind": "linear", "inputs": 64, "outputs": 30, "bias": True, "every_ms": 40.0, "per_label": 1.0,
         "after_end": False},
    ],
    "bits": {"*": {"weight": 8, "activation": 8}, "joiner.*": {"weight": 4, "granularity": "channel", "placement": "cpu"}},
}  # fmt: skip


def make(random: Random, originals: Originals, folder: Path) -> Attempt:
    """Price it."""
    sizes = SIZES if random.random() < 0.7 else originals.yaml(f"benchmarks/paper_claims/{random.choice(['small', 'on_device'])}.yaml")
    if random.random() < 0.2:
        content, what, invalid = yaml_text.rewritten(random, sizes)
    else:
        sizes, change = mutated(random, sizes, ("layers", "bits"))
        content, what, invalid = yaml_text.dumped(sizes), str(change), _nonsense(change)
    (folder / FILE).write_bytes(content)
    more = random.choice([["--json"], ["--json"], [], ["--operators"], ["--bits", "w4a8"], ["--plot", "o.png"]])
    return Attempt(["simulate", FILE, *more], what, invalid, named=FILE)


def _nonsense(change: Change) -> bool:
    last = str(change.path[-1])
    if last in ("source", "name") and change.how in ("type", "text", "name", "removed"):
        return False
    match change.how:
        case "type":
            return not (change.path == ("bits",) and change.new is None)
        case "number":
            whole = isinstance(change.old, int) and last not in ("every_ms", "per_label", "share")
            bad = not 0 <= change.new < float("inf") or (change.new == 0 and last != "per_label")
            return bad or (whole and change.new != int(change.new)) or change.new >= 10**30 or (last == "share" and change.new > 1)
        case "unknown" | "deep" | "name":
            return last != "placement" or change.how != "text"
    return False
