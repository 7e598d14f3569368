"""`python -m benchmarks.search [--out DIR]`: run the studies, draw volume against seconds, write `reports/search`."""

import argparse
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna

from benchmarks.machine import describe
from benchmarks.search import plot, text
from benchmarks.search.curves import Curve, curve
from benchmarks.search.exact import exact_front
from benchmarks.search.feasible import feasible_share
from benchmarks.search.ranking import rank_correlation
from benchmarks.search.seconds import step_seconds
from benchmarks.search.studies import WAYS, Entry, entries, sweep
from qstudy.files import write_json, write_text


def main() -> None:
    """Sweep what is missing, measure, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/search"), help="folder of the report")
    parser.add_argument("--root", type=Path, default=Path("studies"), help="folder of the studies")
    parser.add_argument("--seeds", type=int, default=3, help="studies of each kind")
    arguments = parser.parse_args()
    studies = list(entries(arguments.root, arguments.seeds, list(WAYS)))
    for entry in studies:
        sweep(entry)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = measure(studies, arguments.root / "search-exact", arguments.seeds)
    curves = [Curve(**one) for one in found["curves"]]
    plot.draw(curves, arguments.out / "search.png")
    write_json(arguments.out / "search.json", {**found, "machine": describe()})
    write_text(arguments.out / "README.md", text.markdown(found, curves))
    print(f"Written: {arguments.out / 'README.md'}")


def measure(studies: list[Entry], folder: Path, seeds: int) -> dict[str, Any]:
    """All numbers of the report, JSON-able; `folder` keeps scores of rounded models."""
    seconds = step_seconds(studies[0].config)
    curves = [curve(entry, seconds["fine-tune"], seconds["switchable"]) for entry in studies]
    by_seed: dict[int, dict[bool, list[Entry]]] = defaultdict(lambda: {True: [], False: []})
    for entry in studies:
        by_seed[entry.seed][entry.screened].append(entry)
    return {
        "step_seconds": seconds,
        "curves": [asdict(one) for one in curves],
        "ranking": [rank_correlation(each[True][0], each[False], folder) for each in by_seed.values()],
        "exact": exact_front(folder, seeds),
        "feasible": [feasible_share(seed) for seed in range(seeds)],
    }


if __name__ == "__main__":
    main()
