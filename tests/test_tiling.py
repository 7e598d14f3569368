"""DRAM traffic of matrix products against ZigZag: `oracles/zigzag_traffic.csv` holds what it found."""

import csv
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstudy.hardware.tiling import gemm_dram_bytes

ORACLES = Path(__file__).parent / "oracles"
PYTHON = os.environ.get("ZIGZAG_PYTHON", "")  # a Python that has the package zigzag-dse

sizes = st.integers(1, 3000)
bits = st.sampled_from([2, 3, 4, 6, 8, 16, 32])
capacities = st.integers(0, 10**6)


def test_traffic_is_within_5_percent_of_zigzag() -> None:
    rows = [
        {name: int(value) for name, value in row.items()}
        for row in csv.DictReader((ORACLES / "zigzag_traffic.csv").open())
    ]
    assert {(row["weight"], row["activation"]) for row in rows} == {(4, 8), (8, 8), (16, 16)}
    read_again = 0
    for row in rows:
        shape = (row["m"], row["k"], row["n"])
        ours = gemm_dram_bytes(*shape, row["weight"], row["activation"], 1024 * row["sram_kib"])
        theirs = row["input_bytes"] + row["weight_bytes"] + row["output_bytes"]
        assert float(ours) == pytest.approx(theirs, rel=0.05), row
        read_again += theirs > 1.05 * float(gemm_dram_bytes(*shape, row["weight"], row["activation"], 1e12))
    assert read_again >= 5  # cases in which something does not fit and is read more than once


@pytest.mark.skipif(not PYTHON, reason="ZIGZAG_PYTHON names no Python with the package zigzag-dse")
def test_oracle_says_the_same_again() -> None:
    command = [PYTHON, str(ORACLES / "zigzag_traffic.py"), "2"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert text.splitlines() == (ORACLES / "zigzag_traffic.csv").read_text().splitlines()[:3]


def test_by_hand() -> None:
    # 100 vectors of 10 bytes, 10 x 50 weights of 1 byte: everything once where it fits.
    assert gemm_dram_bytes(100, 10, 50, 8, 8, 10**6) == 100 * 10 + 10 * 50 + 100 * 50
    # A single vector never reads its weights twice, however little fits.
    assert gemm_dram_bytes(1, 256, 1024, 4, 8, 1024) == 256 + 256 * 1024 / 2 + 1024


@settings(max_examples=200, deadline=None)
@given(sizes, sizes, sizes, bits, bits, capacities, capacities)
def test_bounds_and_monotone(m: int, k: int, n: int, weight: int, activation: int, one: int, other: int) -> None:
    little, much = sorted((one, other))
    once = m * k * activation / 8 + k * n * weight / 8 + m * n * activation / 8
    traffic = gemm_dram_bytes(m, k, n, weight, activation, np.array([little, much, 1e12]))
    assert traffic[0] >= traffic[1] >= traffic[2] == pytest.approx(once)
    assert np.isfinite(traffic).all()
    assert gemm_dram_bytes(m, k, n, weight - weight // 2, activation, little) <= traffic[0]
