"""`record.json`: all that is kept of a run; reports are made from these files and nothing else."""

import math
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from qstudy.errors import UserError
from qstudy.files import read_json, write_json
from qstudy.secrets import masked_arguments

SCHEMA = 1
RECORD_FILE = "record.json"
MODEL_FILE = "model.qst"  # beside it
ENTRIES = ("run", "state", "policy", "config", "bit_map", "size_bytes")  # every record has them
STATES = ("complete", "pruned", "failed")
COMMAND_VARIABLE = "QSTUDY_COMMAND"  # what the user typed, for the workers that it started
PACKAGES = ("qstudy", "torch", "torchaudio", "lightning", "numpy", "optuna", "wandb")


def environment() -> dict[str, Any]:
    """Where a record comes from: `versions`, `commit`, `command`, `created` (UTC), `machine` (its kind, no names)."""
    return {
        "versions": _versions(),
        "commit": _commit(),
        "command": command(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
    }


def command() -> str:
    """What the user typed, without passwords; for a worker, what was typed where it was started."""
    return os.environ.get(COMMAND_VARIABLE) or shlex.join(["qstudy", *masked_arguments(sys.argv[1:])])


def write_record(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Write `folder/record.json` in one step and return what it holds: with its schema, NaN and infinity as None.

    Raises:
        ValueError: an entry that every record has is missing, or the state is none of `STATES`.
        UserError: the folder cannot be written.
    """
    if wrong := _wrong(record):
        raise ValueError(f"a record needs {wrong}")
    written: dict[str, Any] = _finite({"schema": SCHEMA, **record})
    write_json(folder / RECORD_FILE, written)
    return written


def read_record(path: Path) -> dict[str, Any]:
    """Read one record.

    Raises:
        UserError: the file is missing, damaged, or of another schema.
    """
    record = read_json(path)
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{path} is not a record that this version reads: `schema` is {schema!r}, not {SCHEMA}.")
    if wrong := _wrong(record):
        raise UserError(f"{path} is damaged: it needs {wrong}; remove it, and the run is made again.")
    return dict(record)


def _wrong(record: Mapping[str, Any]) -> str:
    """What a record lacks; empty if nothing."""
    if missing := [key for key in ENTRIES if key not in record]:
        return f"the entry {missing[0]!r}"
    if record["state"] not in STATES:
        return f"a state of {', '.join(STATES)}, not {record['state']!r}"
    return ""


def read_records(study: Path) -> list[dict[str, Any]]:
    """The records of a study's folder, by run name; empty if no run has ended.

    Raises:
        UserError: a record is damaged or of another schema.
    """
    return [read_record(path) for path in sorted(study.glob(f"runs/*/{RECORD_FILE}"))]


def headline(record: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers that stand for a run: `wer` (of the first test set, else of dev), `size_bytes`, `latency_ms`, `rtf`.

    Latency and real-time factor are those simulated on the first accelerator. What a record does not hold is left out.
    """
    metrics = record.get("metrics") or {}
    scores = next((s for name, s in metrics.items() if name != "dev"), metrics.get("dev", {}))
    simulated: dict[str, Any] = next(iter((record.get("latency") or {}).values()), {})
    found = {
        "wer": scores.get("wer"),
        "size_bytes": record.get("size_bytes"),
        "latency_ms": simulated.get("latency_ms"),
        "rtf": simulated.get("rtf"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # an optional part, or run from a checkout
    return found


def _commit() -> str | None:
    """The commit of the source that runs, with `-dirty` if it was changed since; None: installed without git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        ours = subprocess.run([*git, "ls-files", "--error-unmatch", Path(__file__).name], capture_output=True)
        name = subprocess.run([*git, "describe", "--always", "--dirty", "--exclude=*"], capture_output=True, text=True)
    except OSError:  # no git
        return None
    return name.stdout.strip() or None if ours.returncode == 0 else None


def _machine() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def _processor() -> str:
    """The processor's model, or at least its kind."""
    try:
        model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        model = None
    return model[1] if model else platform.machine()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
