"""Manifests: lines that are no JSON, fields of other types, text outside the alphabet, paths that lead elsewhere."""

import json
import os
from pathlib import Path
from random import Random
from typing import Any

from ..case import Attempt
from ..mutate import bytes_changed, mutated
from ..originals import Originals
from ..values import values

FILE = "my.jsonl"
TABLE = values("manifest")


def make(random: Random, originals: Originals, folder: Path) -> Attempt:
    """Evaluate on a manifest, or take durations from it."""
    os.mkfifo(folder / "fifo")
    lines = (originals.corpus / "test.jsonl").read_text("utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    for entry in entries:
        entry["audio_filepath"] = str(originals.corpus / entry["audio_filepath"])
    make_one = random.choice([_field, _field, _field, _line, _line, _bytes, _large])
    content, what, invalid = make_one(random, entries)
    (folder / FILE).write_bytes(content)
    model = str(originals.folder / "fake_qat.qst")
    argv, strict = random.choice(
        [
            (["evaluate", model, "--manifest", FILE], True),
            (["evaluate", model, "--manifest", FILE, "--json"], True),
            (["evaluate", model, "--manifest", FILE, "--skip_broken"], False),
            (["simulate", model, "--manifest", FILE, "--json"], False),
            (["train", "--config", str(originals.folder / "run.yaml"), "--data.train", FILE, "--out", "o"], True),
        ]
    )
    return Attempt(argv, f"{argv[0]} {what}", invalid and strict, named=FILE)


def _dumped(entries: list[Any]) -> bytes:
    return "".join(json.dumps(entry) + "\n" for entry in entries).encode()


def _field(random: Random, entries: list[Any]) -> tuple[bytes, str, bool]:
    """One field of one line."""
    index = random.randrange(len(entries))
    field = random.choice(["audio_filepath", "duration", "text", "other"])
    if field == "audio_filepath" and random.random() < 0.7:
        entries[index][field] = random.choice(TABLE["paths"])
        return _dumped(entries), f"path {entries[index][field]!r:.30}", True
    if field == "text" and random.random() < 0.7:
        entries[index][field] = random.choice(TABLE["texts"])
        return (
            _dumped(entries),
            f"text {entries[index][field]!r:.30}",
            any(not each.isascii() and not each.isspace() for each in entries[index][field]),
        )
    if field == "other":
        more: dict[str, Any] = {"offset": random.choice([1, "x"]), "speaker": random.choice([[], "\ud800"]), "lang": {}}
        key = random.choice(list(more))
        entries[index][key] = more[key]
        return _dumped(entries), f"field {list(entries[index])[-1]}", False
    changed, change = mutated(random, {field: entries[index][field]})
    entries[index] = {**{key: value for key, value in entries[index].items() if key != field}, **changed}
    bad = change.how in ("type", "removed") or (change.how == "number" and change.new not in (0, 0.5))
    return _dumped(entries), str(change), bad


def _line(random: Random, entries: list[Any]) -> tuple[bytes, str, bool]:
    """A line of another kind."""
    text = random.choice(TABLE["lines"])
    lines = [json.dumps(entry) for entry in entries]
    lines.insert(random.randrange(len(lines) + 1), text)
    return "\n".join(lines).encode("utf-8"), f"line {text[:30]!r}", bool(text.strip())


def _bytes(random: Random, entries: list[Any]) -> tuple[bytes, str, bool]:
    if random.random() < 0.3:
        return _dumped(entries).decode().encode(random.choice(["utf-16", "utf-32"])), "another encoding", True
    content, what = bytes_changed(random, _dumped(entries))
    return content, what, what in ("bytes empty", "bytes noise")


def _large(random: Random, entries: list[Any]) -> tuple[bytes, str, bool]:
    """The same line, many times; and lines that are blank."""
    how = random.choice(["blank", "twice", "long", "duplicate keys"])
    match how:
        case "blank":
            return b"\n \n\t\r\n" * 1000, how, True
        case "twice":
            return _dumped(entries * 2), how, False
        case "long":
            return _dumped([{**entries[0], "zzz": "x" * 3_000_000}]), how, False
    line = json.dumps(entries[0])[:-1] + ', "duration": -1, "text": 3}\n'
    return line.encode(), how, True
