"""Finished runs at today's prices: a simulator or a profile has changed, what was trained has not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from qstudy.errors import UserError, naming
from qstudy.files import parse_json, write_text
from qstudy.named import asked_by
from qstudy.quant.policies import build_policy
from qstudy.training.config import RunConfig, config_from_dict
from qstudy.training.load import load_recognizer
from qstudy.training.price import Price, describe_price, price, price_layers
from qstudy.training.record import (
    MODEL_FILE,
    RECORD_FILE,
    Record,
    change_record,
    is_of_other_kind,
    parse_record,
    read_record,
)

PRICED = ("bit_map", "layers", "latency", "baseline")
"""What of a record is new."""


def runs_below(folder: Path) -> tuple[list[Path], int]:
    """The folders of finished runs: this one, those in it, or a study's; and how many of language models there are.

    Raises:
        UserError: there are no finished runs, or a record is no JSON.
    """
    places = [folder, *sorted(folder.glob("*")), *sorted(folder.glob("runs/*"))]
    recorded = [place for place in places if (place / RECORD_FILE).is_file()]
    own = [place for place in recorded if not is_of_other_kind(place / RECORD_FILE)]
    found = [place for place in own if _is_finished(place)]
    if not found:
        raise UserError(f"{folder} holds no finished run of a recognizer ({RECORD_FILE}); name another folder.")
    return found, len(recorded) - len(own)


def _is_finished(run: Path) -> bool:
    """Runs whose records came along have no model."""
    return (run / MODEL_FILE).is_file() or read_record(run / RECORD_FILE).state == "complete"


def reprice(run: Path) -> tuple[Record, Record]:
    """Simulate a finished run's model anew, as its configuration says, and write what came out into its record.

    Args:
        run: the folder of the run; without its packed model, which stayed elsewhere, as `reprice_report`.

    Returns:
        The record before and after: bit map (where layers are placed), layers and latencies are new, those of the float
        model that it started from, too. The backlog of an amortized encoder is of real utterances, and stays.

    Raises:
        UserError: record or model are damaged, or name what does not exist (any more).
    """
    file = run / RECORD_FILE
    before = read_record(file)
    with asked_by(file), naming(file):
        if (run / MODEL_FILE).is_file():
            config = _config(before)
            shapes = load_recognizer(run / MODEL_FILE).model.shapes()
            after = repriced(before, price_layers(shapes, build_policy(config.policy).bit_map(shapes), config), config)
        else:
            after = _from_configuration(before)
    if after == before:
        return before, after
    new = {name: getattr(after, name) for name in PRICED}
    return before, change_record(run, lambda record: replace(record, **new))


def reprice_report(file: Path) -> list[tuple[Record, Record]]:
    """The same of a report's records, whose models need not be there: their configurations say how large they are.

    Args:
        file: `records.jsonl`; records of which `can_price` is false stay as they are.

    Returns:
        The records before and after.

    Raises:
        UserError: a record is damaged, or names what does not exist (any more).
    """
    found, lines = [], []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if not line.strip():
            lines.append(line)
            continue
        where = f"{file}:{number}"
        values = parse_json(line, where)
        with asked_by(file), naming(where):
            before = parse_record(values)
            after = _from_configuration(before)
        found.append((before, after))
        same = all(getattr(before, name) == getattr(after, name) for name in ("latency", "baseline"))
        # then the line stays what it is, as old as it may be
        new = {name: getattr(after, name) for name in PRICED}
        lines.append(line if same else json.dumps({**values, **new}).encode())
    write_text(file, b"".join(line + b"\n" for line in lines).decode())
    return found


def can_price(record: Record) -> bool:
    """Whether a record says what its model costs: not where it has no configuration, nor of a search, whose language
    models are known from their files alone."""
    return record.config is not None and "searches" not in record.config


def _config(record: Record) -> RunConfig:
    if record.config is None:
        raise UserError("config: the record holds none; the run has to be made again.")
    return config_from_dict(record.config)


def _from_configuration(record: Record) -> Record:
    if not can_price(record):
        return record
    config = _config(record)
    return repriced(record, price(config, (record.usage or {}).get("dev")), config)


def repriced(record: Record, cost: Price, config: RunConfig) -> Record:
    """A run's record at another price; the float model that it started from has the same layers."""
    entries = {name: describe_price(cost)[name] for name in PRICED if name != "baseline"}
    baseline: Any = record.baseline
    if baseline and baseline.get("latency") and record.usage is None:
        floats = price_layers(cost.shapes, build_policy({"name": "float"}).bit_map(cost.shapes), config)
        baseline = {**baseline, "latency": floats.latency}
    return replace(record, **entries, baseline=baseline)


def latencies(record: Record) -> dict[str, float | None]:
    """Accelerator -> milliseconds, those of the float model that it started from as `NAME in float`; None: unknown."""
    before: Any = record.baseline or {}
    of_float = {f"{name} in float": totals for name, totals in (before.get("latency") or {}).items()}
    return {name: totals.get("latency_ms") for name, totals in {**(record.latency or {}), **of_float}.items()}
