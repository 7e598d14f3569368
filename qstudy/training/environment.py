"""Where a record comes from: versions, commit, command, machine."""

import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from qstudy.secrets import masked_arguments

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
