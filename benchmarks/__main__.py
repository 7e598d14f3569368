"""`python -m benchmarks [SUBJECT...] [--out DIR]`: measure, print one table, write it.

That of all subjects goes to `reports/bench` once it is whole, that of some, and what was measured of all so far, to
`runs/bench`.
"""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from tqdm import tqdm

from benchmarks import (
    amortized,
    beam,
    conformer,
    data,
    fusion,
    gpu,
    head,
    loss,
    many_trials,
    memory,
    qat,
    report,
    simulator,
    streaming,
    sweep,
    table,
)
from benchmarks.machine import describe
from benchmarks.row import Row
from qstudy.files import write_json, write_text

SUBJECTS: dict[str, Callable[[], Iterable[Row]]] = {
    "loss": loss.rows,
    "head": head.rows,
    "qat": qat.rows,
    "gpu": gpu.rows,
    "streaming": streaming.rows,
    "conformer": conformer.rows,
    "amortized": amortized.rows,
    "beam": beam.rows,
    "fusion": fusion.rows,
    "memory": memory.rows,
    "simulator": simulator.rows,
    "data": data.rows,
    "report": report.rows,
    "sweep": sweep.rows,
    "many_trials": many_trials.rows,
}

WHOLE, SOME = Path("reports/bench"), Path("runs/bench")
"""Where the table of all subjects goes, and that of those that were named, or of as many as were measured when it
stopped, which is nobody's record."""


def main() -> None:
    """Measure the subjects in order."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(SUBJECTS)}; all if none is named"
    )
    parser.add_argument("--out", type=Path, help=f"folder of bench.json and bench.md; by default {WHOLE}, or {SOME}")
    arguments = parser.parse_args()
    if unknown := set(arguments.subjects) - set(SUBJECTS):
        parser.error(f"no subject {min(unknown)!r}; subjects are {', '.join(SUBJECTS)}")
    out = arguments.out or (SOME if arguments.subjects else WHOLE)
    machine = describe()
    found: list[Row] = []
    with tqdm(desc="measuring", unit=" rows", disable=None) as progress:
        for subject in arguments.subjects or SUBJECTS:
            progress.set_postfix_str(subject)
            for row in SUBJECTS[subject]():
                found.append(row)
                progress.update()
            write(arguments.out or SOME, found, machine)  # what is there if the next one stops
    write(out, found, machine)
    Console(width=None).print(table.terminal(found))
    print(f"Written: {out / 'bench.md'}, {out / 'bench.json'}")


def write(out: Path, found: list[Row], machine: dict[str, Any]) -> None:
    """The table, as data and as text."""
    write_json(out / "bench.json", table.json(found, machine))
    write_text(out / "bench.md", table.markdown(found, machine))


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # before there are threads, which take it from this one
    main()
