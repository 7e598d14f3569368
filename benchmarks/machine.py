"""What the figures were measured on."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import qstudy
from qstudy.quant.kernels import SWITCH
from qstudy.quant.kernels.ir import FEATURES

INSTRUCTIONS = ("avx2", "avx512f", "avx512vnni", "avx512bf16", "amx-int8", "asimd")
"""Those that decide how fast something is here."""
PACKAGES = ("torch", "torchaudio", "numpy", "numba", "warprnnt-numba", "brevitas", "onnxruntime")


def describe() -> dict[str, Any]:
    """Machine, versions, commit, command and time; JSON-able."""
    return {
        "processor": processor(),
        "instructions": [name for name in INSTRUCTIONS if name in FEATURES],
        "portable": os.environ.get(SWITCH) == "1",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "versions": {"qstudy": qstudy.__version__, "python": platform.python_version(), **packages()},
        "commit": commit(),
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def processor() -> str:
    """The processor's name, where the system tells it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def packages() -> dict[str, str]:
    """Versions of what is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The checkout's commit, with `+` when files differ from it; empty outside of git."""
    command = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    return done.stdout.strip()
