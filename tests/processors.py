"""Older processors: what torch, oneDNN and numba are held to, in a process of its own."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from qstudy.quant.kernels import ir

ROOT = Path(__file__).parents[1]
PROCESSORS = {
    "AVX2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma",  # the name alone leaves the machine's own in force
    },
    "x86-64": {
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "ATEN_CPU_CAPABILITY": "default",
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
    },
}
is_avx2 = pytest.mark.skipif(not (ir.WIDE or ir.VNNI), reason="this processor is one: all tests run on it")
CASES = [pytest.param("AVX2", marks=is_avx2), "x86-64"]
on_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="older x86 processors")


def python_on(processor: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run python on one of `PROCESSORS`, without a GPU."""
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = os.environ | PROCESSORS[processor] | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
