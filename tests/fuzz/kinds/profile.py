"""Accelerator profiles."""

from pathlib import Path
from random import Random

from .. import yaml_text
from ..case import Attempt
from ..mutate import Change, mutated
from ..originals import Originals

FILE = "mine.yaml"
MAY_BE_ZERO = ("sram_kib", "_pj", "_pj_per_byte", "latency_us")
WHOLE = ("rows", "columns", "cores", "weight", "activation")


def make(random: Random, originals: Originals, folder: Path) -> Attempt:
    """Price a model on an accelerator that someone described."""
    name = random.choice(["edge_nna", "cortex_a76", "int4_multicore", "mobile_npu"])
    profile = originals.yaml(f"qstudy/hardware/profiles/{name}.yaml")
    if random.random() < 0.2:
        content, what, invalid = yaml_text.rewritten(random, profile)
    else:
        profile, change = mutated(random, profile)
        content, what, invalid = yaml_text.dumped(profile), str(change), _nonsense(change)
    (folder / FILE).write_bytes(content)
    argv = ["simulate", str(originals.folder / f"{random.choice(['fake_qat', 'float', 's8bqat'])}.qst")]
    more = random.choice([["--json"], ["--json"], [], ["--plot", "o.svg"]])
    if random.random() < 0.3:
        return Attempt([*argv, "--compare", FILE, *more], what, invalid, named=FILE)
    return Attempt([*argv, "--accelerator", FILE, *more], what, invalid, named=FILE)


def _nonsense(change: Change) -> bool:
    last = str(change.path[-1])
    match change.how:
        case "type":
            free = last in ("cpu", "cpu_memory", "handover", "weights_per_cycle") and change.new is None
            return not free and last != "name"
        case "number":
            bad = not 0 <= change.new < float("inf") or (change.new == 0 and not last.endswith(MAY_BE_ZERO))
            return bad or (last in WHOLE and change.new != int(change.new))
        case "unknown" | "deep":
            return True
    return False
