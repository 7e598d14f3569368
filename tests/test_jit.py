"""`qstudy.jit`: compiled loops are kept on disk where a folder can be written, and work where none can."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qstudy.jit import address_of, call, compiled, on_threads

MODULE = """
import numpy as np
from qstudy.jit import compiled, on_threads
IMPORTS
@compiled(uses=USES)
def double(values, first, step):
    for i in range(first, values.size, step):
        values[i] *= 2

def main():
    values = np.arange(10.0)
    on_threads(double, values)
    assert values.tolist() == [2.0 * i for i in range(10)]
    print(sum(double.stats.cache_hits.values()))
"""
# `main` runs when the module is there: numba's compiling thread imports it, and would wait for the thread that does so


def run_module(folder: Path, uses: str = "()", **environment: str) -> str:
    """Run `main` of the module above, from `folder`, in a fresh process; returns what it prints."""
    code = MODULE.replace("USES", uses).replace("IMPORTS", "import processor" if "processor" in uses else "")
    if not (folder / "loops.py").exists():
        (folder / "loops.py").write_text(code)
    root = str(Path(__file__).parents[1])
    variables = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{root}", "OMP_NUM_THREADS": "2"} | environment
    done = subprocess.run(
        [sys.executable, "-c", "import loops; loops.main()"], env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_second_process_reads_what_the_first_compiled(tmp_path: Path) -> None:
    assert run_module(tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache")) == "0"
    assert run_module(tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache")) == "1"


def test_code_of_two_machines_lies_side_by_side(tmp_path: Path) -> None:
    cache, hits = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}, []
    for machine in ("with", "without", "with", "without"):
        (tmp_path / "processor.py").write_text("import os\nMACHINE = os.environ['MACHINE']\n")
        os.utime(tmp_path / "processor.py", (1e9, 1e9))
        hits.append(run_module(tmp_path, uses="(processor,)", MACHINE=machine, **cache))
    assert hits == ["0", "0", "1", "1"]


def test_no_folder_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").write_text("a file where the folder should be")
    nowhere = {"NUMBA_CACHE_DIR": "/dev/null/cache", "XDG_CACHE_HOME": "/dev/null", "HOME": "/dev/null"}
    assert run_module(tmp_path, **nowhere) == "0"
    assert not list(tmp_path.rglob("*.nbi"))


def _sum(first: int, second: int) -> int:
    return 2 * first + second


@compiled()
def _called(address: int, first: int, second: int) -> int:
    result: int = call(address, (first, second))
    return result + 1


def test_a_function_is_called_by_its_address() -> None:
    assert _called(address_of(compiled()(_sum), 2), 20, -7) == 34


def test_errors_of_a_thread_are_raised() -> None:
    def fail(first: int, step: int) -> None:
        if first == step - 1:
            raise RuntimeError("broken")

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(RuntimeError, match="broken"):
            on_threads(fail)
    finally:
        torch.set_num_threads(before)
