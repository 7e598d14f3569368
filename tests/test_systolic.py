"""Compute cycles against SCALE-Sim 3 (`oracles/scalesim_cycles.csv` holds what it said); those of overlapping tiles
against an array that is stepped cell by cell."""

import csv
import io
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from qstudy.hardware.accelerator import Dataflow, Fill, Mode, Processor
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


@dataclass
class Overlapped:
    """An array whose cells have a second register, cycle by cycle, values included.

    Vectors enter row 0 of column 0 and reach cell (r, c) r + c cycles later, as do weights and what controls them. A
    tile's weights enter each column at one a cycle, and pass down until the cell whose weight it is keeps it; that
    begins with the cycle in which the tile before starts to stream, and takes its place as its own first vector passes.
    """

    rows: int
    columns: int
    sooner: int = 0
    """Cycles by which a tile follows the one before sooner than it may."""

    def weight_stationary(self, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, int]:
        """Product and cycles; K and N are multiples of the array's sides."""
        (m, k), n = x.shape, w.shape[1]
        places = [(top, left) for left in range(0, n, self.columns) for top in range(0, k, self.rows)]
        loads, streams = self._entries(len(places), first=self.rows, stream=m)
        kept, used = np.full((2, self.rows, self.columns), np.nan)
        product, last = np.zeros((m, n)), 0
        for cycle in range(max(streams) + self.rows + self.columns):
            for r, c in np.ndindex(self.rows, self.columns):
                if entry := streams.get(cycle - r - c):  # a vector of this tile passes
                    (top, left), vector = places[entry[0]], entry[1]
                    used[r, c] = kept[r, c] if vector == 0 else used[r, c]
                    product[vector, left + c] += x[vector, top + r] * used[r, c]
                    last = cycle
                if (entry := loads.get(cycle - r - c)) and entry[1] == r:
                    top, left = places[entry[0]]
                    kept[r, c] = w[top + r, left + c]
        return product, last + 1

    def output_stationary(self, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, int]:
        """Product and cycles; M and N are multiples of the array's sides. A column gives one output a cycle."""
        (m, k), n = x.shape, w.shape[1]
        places = [(top, left) for top in range(0, m, self.rows) for left in range(0, n, self.columns)]
        _, streams = self._entries(len(places), first=0, stream=k)
        sums, product, given = np.zeros((self.rows, self.columns)), np.zeros((m, n)), set[tuple[int, int]]()
        for cycle in range(max(streams) + self.rows + self.columns):
            for r, c in np.ndindex(self.rows, self.columns):
                if entry := streams.get(cycle - r - c):
                    (top, left), step = places[entry[0]], entry[1]
                    sums[r, c] = x[top + r, step] * w[step, left + c] + (sums[r, c] if step else 0)
                    if step == k - 1 and (cycle, c) not in given:  # else it is lost
                        given.add((cycle, c))
                        product[top + r, left + c] = sums[r, c]
        return product, max(cycle for cycle, _ in given) + 1

    def _entries(self, count: int, first: int, stream: int) -> tuple[dict[int, tuple[int, int]], ...]:
        """Cycle -> (tile, row of its weights) and cycle -> (tile, vector), where they enter the array: a tile starts to
        stream when the one before has entered, and when as many cycles as it has rows have gone by since that began."""
        loads, streams, begins, loading = {}, {}, first, 0
        for tile in range(count):
            loads |= {loading + row: (tile, row) for row in range(self.rows)}
            streams |= {begins + vector: (tile, vector) for vector in range(stream)}
            loading, begins = begins, begins + max(stream, self.rows) - self.sooner
        return loads, streams


@pytest.mark.parametrize("dataflow", ["weight_stationary", "output_stationary"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 4), (4, 1), (3, 5), (5, 2)])
@pytest.mark.parametrize("stream", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("tiles", [1, 2, 3])
def test_overlapped_tiles_cell_by_cell(dataflow: Dataflow, rows: int, columns: int, stream: int, tiles: int) -> None:
    shape = (stream, tiles * rows, 2 * columns) if dataflow == "weight_stationary" else (tiles * rows, stream, columns)
    m, k, n = shape
    generator = np.random.default_rng(0)
    x, w = generator.integers(1, 9, (m, k)), generator.integers(1, 9, (k, n))
    product, cycles = getattr(Overlapped(rows, columns), dataflow)(x, w)
    assert (product == x @ w).all()
    assert array_cycles(*shape, rows, columns, dataflow, "overlapped") == cycles


@pytest.mark.parametrize("dataflow", ["weight_stationary", "output_stationary"])
def test_overlapped_tiles_could_not_follow_sooner(dataflow: Dataflow) -> None:
    """With one cycle less between two tiles the array computes something else."""
    m, k, n = (2, 8, 4) if dataflow == "weight_stationary" else (8, 2, 4)
    x, w = np.ones((m, k)), np.arange(1.0, k * n + 1).reshape(k, n)
    right, wrong = (getattr(Overlapped(4, 2, sooner), dataflow)(x, w)[0] for sooner in (0, 1))
    assert (right == x @ w).all()
    assert not (wrong == x @ w).all()


ONE = np.array([1])


def test_cores_share_outputs_and_modes_share_inputs() -> None:
    sizes = np.array([4]), np.array([128]), np.array([256]), ONE
    single = Processor(1, 8, 8, "weight_stationary", (Mode(8, 8),))
    tiles, cycles = weight_tiles_and_cycles(*sizes, single, Mode(8, 8))
    assert (tiles, cycles) == (512, 512 * 26)
    four = Processor(1, 8, 8, "weight_stationary", (Mode(8, 8),), cores=4)
    assert weight_tiles_and_cycles(*sizes, four, Mode(8, 8))[1] == cycles / 4
    assert weight_tiles_and_cycles(*sizes, single, Mode(4, 4, macs=8))[1] == cycles / 8
    assert weight_tiles_and_cycles(*sizes, single, Mode(8, 16, macs=0.5))[1] == cycles * 2


@pytest.mark.parametrize("dataflow", ["weight_stationary", "output_stationary"])
@pytest.mark.parametrize("fill", ["serial", "overlapped"])
def test_groups_share_no_tile(dataflow: Dataflow, fill: Fill) -> None:
    """Sixteen heads of five outputs each take what sixteen products of five take, not what one of eighty takes."""

    def cost(cores: int, outputs: int, groups: int) -> tuple[int, int]:
        processor = Processor(1, 8, 8, dataflow, (Mode(8, 8),), cores=cores, fill=fill)
        sizes = (np.array([number]) for number in (4, 24, outputs, groups))
        tiles, cycles = weight_tiles_and_cycles(*sizes, processor, Mode(8, 8))
        return tiles.item(), cycles.item()

    tiles, _ = cost(1, 5, 1)
    assert cost(1, 80, 16) == (16 * tiles, array_cycles(4, 24, 5, 8, 8, dataflow, fill, groups=16))
    assert cost(4, 80, 16) == cost(1, 20, 4)  # each core has four heads
    assert cost(5, 80, 16) == cost(1, 20, 4)  # one of five has four of them, too
    assert cost(8, 80, 2) == cost(1, 10, 1)  # four cores share the 40 outputs of each


def test_groups_follow_each_other_as_tiles_do() -> None:
    """The array is filled and emptied once where tiles overlap, whether the next tile is of the same group or not."""
    for fill in ("serial", "overlapped"):
        cycles = [array_cycles(9, 8, 8 * n, 8, 8, "weight_stationary", fill, groups=g) for n, g in ((6, 1), (3, 2))]
        assert cycles[0] == cycles[1]


def test_vector_lanes() -> None:
    cpu = Processor(1, 1, 16, "vector", (Mode(8, 8),))
    sizes = np.array([2]), np.array([33]), np.array([10])
    assert weight_tiles_and_cycles(*sizes, ONE, cpu, Mode(8, 8)) == (10, 60)
