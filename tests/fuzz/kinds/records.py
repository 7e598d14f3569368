"""Records of a study, into a report."""

import json
from pathlib import Path
from random import Random
from typing import Any

from ..case import Attempt
from ..mutate import bytes_changed, mutated
from ..originals import Originals
from ..values import values

TABLE = values("records")


def make(random: Random, originals: Originals, folder: Path) -> Attempt:
    """Report a study; what is wrong with one record must not cost the others."""
    records = json.loads(json.dumps(originals.records))
    name, content, what = random.choice([_field, _field, _field, _markup, _line, _bytes])(random, records)
    (folder / "study" / name).parent.mkdir(parents=True)
    (folder / "study" / name).write_bytes(content)
    return Attempt(["report", "study", "--out", "out"], what)


def written(random: Random, records: list[Any]) -> tuple[str, bytes]:
    """A report's copy of its records: file and content."""
    return "records.jsonl", "\n".join(json.dumps(record) for record in records).encode()


def _field(random: Random, records: list[Any]) -> tuple[str, bytes, str]:
    index = random.randrange(len(records))
    records[index], change = mutated(random, records[index], tuple(TABLE["prefer"]))
    if random.random() < 0.2:
        name, value = f"runs/{index}/record.json", json.dumps(records[index]).encode()
        return name, value, f"alone {change}"
    return *written(random, records), str(change)


def _markup(random: Random, records: list[Any]) -> tuple[str, bytes, str]:
    """Text that a browser or LaTeX would run."""
    text, place = random.choice(TABLE["markup"]), random.choice(TABLE["places"]).split(".")
    for record in records:
        inner = record
        for key in place[:-1]:
            inner = inner.get(key) or {}
        inner[place[-1]] = text
        if place == ["study"] or random.random() < 0.3:
            for sample in record.get("samples") or []:
                sample.update(dict.fromkeys(sample, text))
    return *written(random, records), f"{'.'.join(place)} markup {text[:20]!r}"


def _line(random: Random, records: list[Any]) -> tuple[str, bytes, str]:
    text = random.choice(TABLE["lines"])
    lines = [json.dumps(record) for record in records] if random.random() < 0.7 else []
    return "records.jsonl", "\n".join([*lines, text]).encode(), f"line {text[:20]!r}"


def _bytes(random: Random, records: list[Any]) -> tuple[str, bytes, str]:
    content, what = bytes_changed(random, written(random, records)[1])
    return "records.jsonl", content, what
