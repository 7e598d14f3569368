"""Rows: a report of 5,000 runs, in a process of its own; beside it pandas that reads the same file and no more.

`python -m benchmarks.report SIDE FOLDER` measures one side and prints its milliseconds and its peak memory in bytes.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.records import RECORDS
from benchmarks.row import Row
from qstudy.commands.report import report

RUNS = 5_000
SOURCE = Path(__file__).parents[1] / "reports" / "policies" / RECORDS
MEBIBYTE = 2**20


def rows() -> Iterable[Row]:
    """Time, and memory: the floor is to parse the records, and to hold them as they lie on disk."""
    with tempfile.TemporaryDirectory() as folder:
        size = made_up(Path(folder), RUNS).stat().st_size / MEBIBYTE
        figures = {side: measured(side, folder) for side in SIDES}
    times, peaks = ({side: figure[place] for side, figure in figures.items()} for place in (0, 1))
    what = f"report of {RUNS:,} runs, {size:.0f} MiB of records"
    yield Row(what, "ms", "pandas.read_json", times["ours"], times["peer"], "json.loads", times["floor"])
    what = f"report of {RUNS:,} runs, memory"
    yield Row(what, "MiB", "pandas.read_json", peaks["ours"], peaks["peer"], "the records", size)


def made_up(folder: Path, runs: int) -> Path:
    """Records of one study: those of the policies on the digits again and again, some with widths by layer."""
    dice = np.random.default_rng(0)
    lines = [line for line in SOURCE.read_text().splitlines() if '"study": "policies-digits"' in line]
    with (folder / RECORDS).open("w") as file:
        for trial in range(runs):
            record = json.loads(lines[trial % len(lines)])
            record |= {"run": f"trial-{trial:04d}", "trial": trial, "study": "many"}
            record["config"]["finetune"]["learning_rate"] = trial  # a setting of its own
            if trial % 3:
                record["policy"] = record["config"]["policy"]["name"] = "mixed"
                for bits in record["bit_map"].values():
                    bits["weight"] = int(dice.integers(2, 9))
                record["size_bytes"] = int(dice.integers(400_000, 2_000_000))
                record["metrics"]["dev"]["wer"] *= dice.uniform(0.5, 4)
            file.write(json.dumps(record) + "\n")
    return folder / RECORDS


def measured(side: str, folder: str) -> tuple[float, float]:
    """Milliseconds and MiB of one side, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.report", side, folder]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    milliseconds, peak = map(float, told.split())
    return milliseconds, peak / MEBIBYTE


def parsed(folder: Path) -> None:
    """Every record as Python has it, one at a time."""
    with (folder / RECORDS).open() as file:
        for line in file:
            json.loads(line)


SIDES = {
    "ours": lambda folder: report([folder], folder / "out"),
    "peer": lambda folder: pd.read_json(folder / RECORDS, lines=True),
    "floor": parsed,
}


def main(side: str, folder: str) -> None:
    """Measure one side."""
    begin = time.perf_counter()
    SIDES[side](Path(folder))
    seconds = time.perf_counter() - begin
    print(1e3 * seconds, 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
