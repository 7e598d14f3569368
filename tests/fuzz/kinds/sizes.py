"""Models without weights."""

from pathlib import Path
from random import Random

from .. import yaml_text
from ..case import Attempt
from ..mutate import Change, mutated
from ..originals import Originals
from ..values import values

FILE = "sizes.yaml"
SIZES = values("sizes")


def make(random: Random, originals: Originals, folder: Path) -> Attempt:
    """Price it."""
    committed = originals.yaml(f"benchmarks/paper_claims/{random.choice(['small', 'on_device'])}.yaml")
    sizes = SIZES if random.random() < 0.7 else committed
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
            bad |= change.new >= 10**30 or (last == "share" and change.new > 1)
            return bad or (whole and change.new != int(change.new))
        case "unknown" | "deep" | "name":
            return last != "placement" or change.how != "text"
    return False
