"""Runs that need no training, because records of them came along: those of a report, or of a study somewhere else.

`known.jsonl` in a study's folder holds these records. A trial whose results would depend on nothing else than those of
a record takes that as its own; its packed model stays where it was trained.
"""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from qstudy.errors import UserError
from qstudy.fields import with_order
from qstudy.files import parse_json, write_text
from qstudy.training.config import RunConfig, config_from_dict, to_dict, without_neutral
from qstudy.training.price import Price
from qstudy.training.record import RECORD_FILE, Record, parse_record, read_record, write_record
from qstudy.training.reprice import repriced

KNOWN = "known.jsonl"


class Known(NamedTuple):
    """A record that came along."""

    record: Record
    config: RunConfig
    parts: dict[str, Any]
    """What its results depend on."""


def of_trained(records: Iterable[dict[str, Any]]) -> list[str]:
    """Those of trained models among JSON mappings, a line of JSON each.

    Raises:
        UserError: none is.
    """
    trained = [json.dumps(each, ensure_ascii=False) for each in records if each.get("state") == "complete"]
    if not trained:
        raise UserError("--known: no trained model's record lies there; name folders of reports or of studies.")
    return trained


def keep_known(folder: Path, records: Sequence[str]) -> None:
    """Keep records, in lines, for the trials of a study, beside those that it has already."""
    before = (folder / KNOWN).read_text(encoding="utf-8").splitlines() if has_known(folder) else []
    if records:
        write_text(folder / KNOWN, "".join(f"{line}\n" for line in dict.fromkeys([*before, *records])))


def has_known(folder: Path) -> bool:
    """Whether records came along with a study."""
    return (folder / KNOWN).exists()


def take_known(root: Path, config: RunConfig, run: Path, cost: Price, **own: Any) -> Record | None:
    """The record that a run would end with, if one that came along is the same run's; written to its folder.

    Args:
        root: the study's folder.
        config: of the run.
        run: folder of the run.
        cost: today's, which the record gets, beside the study's other trials; but not that of an amortized encoder,
            which depends on what was heard.
        own: fields of the record that only this study knows.

    Raises:
        UserError: a record that came along is damaged.
    """
    if (record := known_record(root, config)) is None:
        return None
    run.mkdir(parents=True, exist_ok=True)
    priced = repriced(record, cost, config) if record.usage is None else record
    return write_record(run, replace(_asked(priced, config), run=run.name, **own))


def known_record(root: Path, config: RunConfig) -> Record | None:
    """The record that came along with the study in `root` and is that of this run; raises as `take_known`."""
    if not has_known(root):
        return None
    records, asked = _records(root / KNOWN, (root / KNOWN).stat().st_mtime_ns), _parts(config)
    return next(
        (one.record for one in records if one.parts == asked and _has_all(one.record, one.config, config)), None
    )


@lru_cache(maxsize=1)  # a worker asks for every trial of its study
def _records(path: Path, written: int) -> list[Known]:
    """All that still mean a run; `written` (nanoseconds) tells older files from newer ones."""
    found = []
    for line in path.read_bytes().splitlines():
        record = parse_record(parse_json(line, str(path)))
        with suppress(UserError):  # a configuration of fields that are no more
            config = config_from_dict(dict(record.config or {}))
            found.append(Known(record, config, _parts(config)))
    return found


def differences(record: Record, config: RunConfig) -> list[str]:
    """Fields in which a record's run differs from one with this configuration, of those that its results depend on.

    Raises:
        UserError: the record is of a configuration with fields that are no more.
    """
    now, then = _parts(config), _parts(config_from_dict(dict(record.config or {})))
    return [name for name in now if now[name] != then.get(name)]


def require_same_run(folder: Path, config: RunConfig) -> None:
    """Raise UserError if a folder holds the finished run of another configuration, which would be written over."""
    file = folder / RECORD_FILE
    if not file.exists() or (record := read_record(file)).state != "complete":
        return
    try:
        changed = differences(record, config)
    except UserError:
        changed = ["configuration"]
    if changed:
        raise UserError(
            f"{folder} holds a finished run with another {', '.join(changed)}; name another folder by --out, or "
            "remove it."
        )


def _has_all(record: Record, then: RunConfig, config: RunConfig) -> bool:
    """Whether a record, of a run with the same parts, has all that is asked for, and the same start: then the run would
    end with this record, but for chance between builds and machines."""
    scored = config.data.test.items() <= then.data.test.items() and set(config.data.test) <= set(record.metrics or {})
    priced = record.usage is None or set(config.accelerator) <= set(record.latency or {})
    return scored and priced and _starts_alike(record, then, config)


def _asked(record: Record, config: RunConfig) -> Record:
    """The record without the sets and accelerators that this run did not ask for, the others in its order."""
    sets = ("dev", *config.data.test)
    asked = {"metrics": sets, "utterances": sets, "usage": sets, "latency": config.accelerator}
    held: Any = {name: values for name in asked if (values := getattr(record, name)) is not None}
    kept: Any = {name: {key: has[key] for key in asked[name] if key in has} for name, has in held.items()}
    return replace(record, **kept)


def _starts_alike(record: Record, then: RunConfig, config: RunConfig) -> bool:
    """Whether both start from the same weights: a file's by their hash, which the record's baseline is named by, or,
    where the file is that of a run which was known itself and so made none, by the place where it would be."""
    if config.start_file is None:
        return True
    if not config.start_file.exists():
        return then.start == config.start
    return str((record.baseline or {}).get("id")).endswith(f"-{str(config.start_identity)[:8]}")


def _parts(config: RunConfig) -> dict[str, Any]:
    """What a trained model and its scores on dev depend on, but for the files themselves."""
    values = without_neutral(to_dict(config), config.schedules)
    fields = ("features", "tokenizer", "model", "augment", "policy", "seed", *config.schedules)
    parts = {name: values[name] for name in fields}
    parts["start"] = config.start_file is None and config.from_scratch
    parts["policy"] = with_order(parts["policy"])
    return parts | {name: values["data"][name] for name in ("train", "dev", "make", "skip_broken")}
