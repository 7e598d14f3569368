"""`qstudy.jit`: compiled loops are kept on disk where a folder can be written, and work where none can."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qstudy.jit import address_of, call, compiled

MODULE = """
import os
import numpy as np
from qstudy.jit import compiled
from qstudy.threads import on_threads
IMPORTS
@compiled(uses=USES)
def double(values, first, step):
    for i in range(first, values.size, step):
        values[i] *= 2

def main():
    values = np.arange(10, dtype=os.environ.get("KIND", "f8"))
    on_threads(double, values)
    assert values.tolist() == [2.0 * i for i in range(10)]
    print(sum(double.stats.cache_hits.values()))
"""
# `main` runs when the module is there: numba's compiling thread imports it, and would wait for the thread that does so

Forks = subprocess.Popen[str]
FORKS = """
import json, os, sys
import numba
from numba.core import config
import qstudy.jit
numba.njit(lambda number: number + 1)(1)  # loads what numba compiles with, which takes seconds
for line in sys.stdin:
    folder, variables = json.loads(line)
    if child := os.fork():
        print("ended with", os.waitpid(child, 0)[1], flush=True)
        continue
    os.environ.update(variables)
    config.reload_config()  # where to keep what it compiles, numba has read already
    sys.path.insert(0, folder)
    import loops
    loops.main()
    sys.exit()
"""


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """A process that has torch and numba's compiler ready, and lets a fork of it do what it is asked for."""
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "2"}
    command, pipe = [sys.executable, "-c", FORKS], subprocess.PIPE
    with Forks(command, env=variables, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
        yield process


def run_module(forks: Forks, folder: Path, uses: str = "()", **environment: str) -> str:
    """Run `main` of the module above, from `folder`, in a process that knows neither; returns what it prints."""
    code = MODULE.replace("USES", uses).replace("IMPORTS", "import processor" if "processor" in uses else "")
    if not (folder / "loops.py").exists():
        (folder / "loops.py").write_text(code)
    assert forks.stdin is not None
    assert forks.stdout is not None
    print(json.dumps([str(folder), environment]), file=forks.stdin, flush=True)
    said = [forks.stdout.readline()]
    while said[-1] and not said[-1].startswith("ended with"):
        said.append(forks.stdout.readline())
    assert said[-1] == "ended with 0\n", "".join(said)
    return "".join(said[:-1]).strip()


def test_second_process_reads_what_the_first_compiled(forks: Forks, tmp_path: Path) -> None:
    assert run_module(forks, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache")) == "0"
    assert run_module(forks, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache")) == "1"


def test_who_knows_nothing_of_another_overwrites_nothing(forks: Forks, tmp_path: Path) -> None:
    """Two processes may both find nothing on disk, and each write the code of another signature."""
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for count, kind in enumerate(("f8", "f4", "i8"), 1):
        run_module(forks, tmp_path, KIND=kind, **cache)
        (index,) = tmp_path.rglob("loops.double*.nbi")
        assert len(list(index.parent.glob("*.nbc"))) == count
        index.unlink()


def test_code_of_two_machines_lies_side_by_side(forks: Forks, tmp_path: Path) -> None:
    cache, hits = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}, []
    for machine in ("with", "without", "with", "without"):
        (tmp_path / "processor.py").write_text("import os\nMACHINE = os.environ['MACHINE']\n")
        os.utime(tmp_path / "processor.py", (1e9, 1e9))
        hits.append(run_module(forks, tmp_path, uses="(processor,)", MACHINE=machine, **cache))
    assert hits == ["0", "0", "1", "1"]


def test_no_folder_can_be_written(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "__pycache__").write_text("a file where the folder should be")
    nowhere = {"NUMBA_CACHE_DIR": "/dev/null/cache", "XDG_CACHE_HOME": "/dev/null", "HOME": "/dev/null"}
    assert run_module(forks, tmp_path, **nowhere) == "0"
    assert not list(tmp_path.rglob("*.nbi"))


def _sum(first: int, second: int) -> int:
    return 2 * first + second


@compiled()
def _called(address: int, first: int, second: int) -> int:
    result: int = call(address, (first, second))
    return result + 1


def test_a_function_is_called_by_its_address() -> None:
    assert _called(address_of(compiled()(_sum), 2), 20, -7) == 34
