"""Records as a sweep would write them, made up: 26 trials of a plausible study, for the tests of the analysis."""

import json
import random
from pathlib import Path
from typing import Any

from analysis.study import Study, load_studies

FLOAT = 32
LAYERS = {
    "encoder.lstm.0": ("lstm", 387072),
    "encoder.lstm.1": ("lstm", 526336),
    "encoder.lstm.2": ("lstm", 526336),
    "predictor.embedding": ("embedding", 3712),
    "predictor.lstm": ("lstm", 395264),
    "joiner.encoder": ("linear", 98432),
    "joiner.predictor": ("linear", 32896),
    "joiner.output": ("linear", 3741),
}
PARAMETERS = sum(parameters for _, parameters in LAYERS.values())
RATE = {  # word error rate by weight bits: without training, with training
    FLOAT: (0.0132, 0.0130),
    8: (0.0132, 0.0131),
    6: (0.0141, 0.0132),
    5: (0.0149, 0.0135),
    4: (0.0196, 0.0141),
    3: (0.081, 0.0187),
    2: (0.96, 0.072),
}
SENTENCES = [
    "seven three nine",
    "one one zero four two",
    "eight six",
    "five nine nine two",
    "zero zero seven",
    "three four one eight six two",
    "nine",
]


def records() -> list[dict[str, Any]]:
    """The baseline and 26 trials: PTQ and QAT at six widths, mixed, encoder only, two over budget, one failed."""
    dice = random.Random(0)
    plan: list[tuple[str, Any, int]] = [("float", FLOAT, FLOAT)]
    for policy in ("ptq", "fake_qat"):
        plan += [(policy, width, FLOAT) for width in (8, 6, 5, 4, 3, 2)] + [
            (policy, width, 8) for width in (6, 4, 3, 2)
        ]
    plan += [("mixed", widths, 8) for widths in ((4, 3, 3), (3, 2, 2), (5, 4, 3))] + [("encoder_only", 3, 8)]
    trials = [trial(number, *settings, dice) for number, settings in enumerate(plan)]
    last = len(trials)
    return [baseline(), *trials, over_budget(last, 8), over_budget(last + 1, 6), failed(last + 2)]


def baseline() -> dict[str, Any]:
    """The float baseline's own record."""
    widths = dict.fromkeys(LAYERS, (FLOAT, FLOAT))
    return _record("float-0a1b2c3d", "float", widths, {"state": "complete", "baseline": None} | _scores(0.0132, 0))


def trial(number: int, policy: str, weight: Any, activation: int, dice: random.Random) -> dict[str, Any]:
    """A finished trial; `weight` is a width, or one each for the three encoder layers (the rest gets the last)."""
    widths = {
        name: (weight if isinstance(weight, int) else weight[min(index, 2)], activation)
        for index, name in enumerate(LAYERS)
    }
    if policy == "encoder_only":
        widths |= {name: (FLOAT, FLOAT) for name in LAYERS if not name.startswith("encoder")}
    bits = [width for width, _ in widths.values()]
    rate = sum(RATE[width][policy != "ptq"] for width in bits) / len(bits)
    rate *= (1.15 if activation == 8 else 1) * dice.uniform(0.97, 1.06)
    return _record(
        f"trial-{number:04d}-{policy}", policy, widths, {"state": "complete", "trial": number} | _scores(rate, number)
    )


def over_budget(number: int, width: int) -> dict[str, Any]:
    """A candidate that was pruned before training: costs, no metrics."""
    record = _record(f"trial-{number:04d}-mixed", "mixed", dict.fromkeys(LAYERS, (width, 16)), {"state": "pruned"})
    reason = f"over budget: size_bytes {record['size_bytes']} > 1600000"
    return record | {"trial": number, "reason": reason, "steps": 0, "step_ms": None}


def failed(number: int) -> dict[str, Any]:
    """A trial that raised."""
    return {
        "schema": 2,
        "run": f"trial-{number:04d}-mixed",
        "study": "digits",
        "trial": number,
        "state": "failed",
        "policy": "mixed",
        "reason": "FloatingPointError: the loss is not finite at step 31",
    }


def write(folder: Path, made: list[dict[str, Any]]) -> Path:
    """Lay the records out as a study folder."""
    for record in made:
        path = folder / "runs" / record["run"] / "record.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(record))
    return folder


def study(folder: Path, made: list[dict[str, Any]]) -> Study:
    """What `analysis` makes of the records."""
    return load_studies(write(folder, made))[0]


def _record(run: str, policy: str, widths: dict[str, tuple[int, int]], more: dict[str, Any]) -> dict[str, Any]:
    size = sum(LAYERS[name][1] * weight // 8 for name, (weight, _) in widths.items()) + 24000
    latency = 0.35 + size / 1.2e6 + (0.4 if FLOAT in {activation for _, activation in widths.values()} else 0)
    return {
        "schema": 2,
        "run": run,
        "study": "digits",
        "trial": None,
        "reason": "",
        "policy": policy,
        "config": {"policy": {"name": policy}, "training": {"steps": 400, "lr": 0.002 if policy == "mixed" else 0.001}},
        "bit_map": {
            name: {
                "weight": weight,
                "activation": activation,
                "accumulator": 32,
                "quantizer": "uniform",
                "granularity": "channel",
                "placement": "accelerator",
            }
            for name, (weight, activation) in widths.items()
        },
        "layers": {name: {"kind": kind, "parameters": parameters} for name, (kind, parameters) in LAYERS.items()},
        "size_bytes": size,
        "file_bytes": size + 2900,
        "latency": {"edge_nna": {"latency_ms": latency, "rtf": latency / 30, "cycles": 81234}},
        "budgets": {"size_bytes": 1600000, "latency_ms": {"accelerator": "edge_nna", "limit": 2.0}},
        "baseline": {"id": "float-0a1b2c3d", "wer": 0.0132, "size_bytes": 4 * PARAMETERS + 24000},
        "steps": 400,
        "step_ms": {"median": 84.0 + len(policy), "p95": 101.5},
        "train_seconds": 36.2,
        "loss": {"first": 3.1, "last": 0.21},
        "seed": 0,
        "versions": {"qstudy": "0.1.0", "torch": "2.12.1", "python": "3.12.3"},
        "commit": "0a1b2c3d4e5f",
        "command": "qstudy sweep sweeps/digits.yaml",
        "created": "2026-01-01T00:00:00+00:00",
    } | more


def _scores(rate: float, seed: int) -> dict[str, Any]:
    spread = 1.96 * (rate / 1500) ** 0.5
    scores = {
        "wer": rate,
        "wer_low": max(0.0, rate - spread),
        "wer_high": rate + spread,
        "cer": rate / 2,
        "substitutions": int(900 * rate),
        "insertions": int(200 * rate),
        "deletions": int(400 * rate),
        "words": 1500,
        "utterances": 300,
        "rtf": 0.0021,
    }
    dev = {**scores, "wer": 0.9 * rate}
    dice = random.Random(seed)
    return {
        "metrics": {"dev": dev, "test": scores},
        "training_model_wer": rate,
        "samples": [{"reference": text, "hypothesis": _heard(text, rate, dice)} for text in SENTENCES],
    }


def _heard(text: str, rate: float, dice: random.Random) -> str:
    words = []
    for word in text.split():
        if dice.random() > 4 * rate:
            words.append(word)
        elif dice.random() < 0.6:
            words.append(dice.choice(["one", "four", "nine", "six"]))
    return " ".join(words)
