"""Compute cycles against SCALE-Sim 3: `oracles/scalesim_cycles.csv` holds what it said."""

import csv
import io
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from qstudy.hardware.accelerator import Mode, Processor
from qstudy.hardware.systolic import array_cycles, weight_tiles_and_cycles

ORACLES = Path(__file__).parent / "oracles"
PYTHON = os.environ.get("SCALESIM_PYTHON", "")  # a Python that has the package scalesim


def expected_and_ours(rows: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    sizes = [[int(row[name]) for name in ("m", "k", "n", "rows", "columns")] for row in rows]
    ours = [array_cycles(*size, row["dataflow"]) for size, row in zip(sizes, rows, strict=True)]
    return [int(row["cycles"]) for row in rows], ours


def test_cycles_equal_scalesim() -> None:
    rows = list(csv.DictReader((ORACLES / "scalesim_cycles.csv").open()))
    assert len(rows) == 400
    assert {row["dataflow"] for row in rows} == {"weight_stationary", "output_stationary"}
    expected, ours = expected_and_ours(rows)
    assert ours == expected
    assert [cycles - 1 for cycles in ours] == [int(row["last_cycle"]) for row in rows]  # its report counts from 0


@pytest.mark.skipif(not PYTHON, reason="SCALESIM_PYTHON names no Python with the package scalesim")
def test_oracle_says_the_same_again() -> None:
    command = [PYTHON, str(ORACLES / "scalesim_cycles.py"), "3"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert text.splitlines() == (ORACLES / "scalesim_cycles.csv").read_text().splitlines()[:7]
    expected, ours = expected_and_ours(list(csv.DictReader(io.StringIO(text))))
    assert ours == expected


def test_cores_share_outputs_and_modes_share_inputs() -> None:
    sizes = np.array([4]), np.array([128]), np.array([256])
    single = Processor(1, 8, 8, "weight_stationary", (Mode(8, 8),))
    tiles, cycles = weight_tiles_and_cycles(*sizes, single, Mode(8, 8))
    assert (tiles, cycles) == (512, 512 * 26)
    four = Processor(1, 8, 8, "weight_stationary", (Mode(8, 8),), cores=4)
    assert weight_tiles_and_cycles(*sizes, four, Mode(8, 8))[1] == cycles / 4
    assert weight_tiles_and_cycles(*sizes, single, Mode(4, 4, macs=8))[1] == cycles / 8
    assert weight_tiles_and_cycles(*sizes, single, Mode(8, 16, macs=0.5))[1] == cycles * 2


def test_vector_lanes() -> None:
    cpu = Processor(1, 1, 16, "vector", (Mode(8, 8),))
    assert weight_tiles_and_cycles(np.array([2]), np.array([33]), np.array([10]), cpu, Mode(8, 8)) == (10, 60)
