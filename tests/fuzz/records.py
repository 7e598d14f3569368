"""Records of a study, into a report."""

import json
from pathlib import Path
from random import Random
from typing import Any

from .case import Attempt
from .mutate import bytes_changed, mutated
from .originals import Originals

TEXTS = ["[" * 100_000, "null", "[]", "3", "{}", '{"schema": 1}', '{"schema": 99}', "{", "NaN", "1" * 5000, "\x00", '"x"']
PREFER = ("run", "study", "metrics", "bit_map", "layers", "latency", "budgets", "samples", "policy", "state", "reason", "baseline",
          "seed", "size_bytes", "edits")  # fmt: skip
PLACES: list[tuple[str, ...]] = [("run",), ("study",), ("policy",), ("reason",), ("commit",), ("command",), ("machine", "processor")]


def make(random: Random, originals: Originals, folder: Path) -> Attempt:
    """Report a study; what is wrong with one record must not cost the others."""
    records = json.loads(json.dumps(originals.records))
    name, content, what = random.choice([_field, _field, _field, _markup, _line, _bytes])(random, records)
    (folder / "study" / name).parent.mkdir(parents=True)
    (folder / "study" / name).write_bytes(content)
    return Attempt(["report", "study", "--out", "out"], what)


def _written(random: Random, records: list[Any]) -> tuple[str, bytes]:
    return "records.jsonl", "\n".join(json.dumps(record) for record in records).encode()


def _field(random: Random, records: list[Any]) -> tuple[str, bytes, str]:
    index = random.randrange(len(records))
    records[index], change = mutated(random, records[index], PREFER)
    if random.random() < 0.2:
        name, value = f"runs/{index}/record.json", json.dumps(records[index]).encode()
        return name, value, f"alone {change}"
    return *_written(random, records), str(change)


def _markup(random: Random, records: list[Any]) -> tuple[str, bytes, str]:
    """Text that a browser or LaTeX would run."""
    text = random.choice(["<script>fuzz_canary()</script>", "\\input{fuzz_canary}", "</style><script>fuzz_canary()</script>",
                          "\"><script>fuzz_canary()</script>", "$x$ _ & % # { } ~ ^ \\", "a" * 3000, "../../fuzz_canary",
                          "\x1b[31m", "$\\frac{$", "\ud800", "\x00"])  # fmt: skip
    place = random.choice(PLACES)
    for record in records:
        inner = record
        for key in place[:-1]:
            inner = inner.get(key) or {}
        inner[place[-1]] = text
        if place == ("study",) or random.random() < 0.3:
            for sample in record.get("samples") or []:
                sample.update({key: text for key in sample})
    return *_written(random, records), f"{'.'.join(place)} markup {text[:20]!r}"


def _line(random: Random, records: list[Any]) -> tuple[str, bytes, str]:
    text = random.choice(TEXTS)
    lines = [json.dumps(record) for record in records] if random.random() < 0.7 else []
    return "records.jsonl", "\n".join([*lines, text]).encode(), f"line {text[:20]!r}"


def _bytes(random: Random, records: list[Any]) -> tuple[str, bytes, str]:
    content, what = bytes_changed(random, _written(random, records)[1])
    return "records.jsonl", content, what
