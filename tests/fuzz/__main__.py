"""Many cases by hand: `python -m tests.fuzz --cases 2000 --seed 1`; one again: `--kind packed --seed 17`."""

import argparse
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from .kinds import KINDS
from .runner import bench, cases, report


def main() -> None:
    """Exit code 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=1, help="how many; with one, its files stay")
    parser.add_argument("--seed", type=int, default=0, help="of the first")
    parser.add_argument("--kind", choices=KINDS, action="append", help="one kind or several; all by default")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds that a command may take")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "qstudy-fuzz")
    options = parser.parse_args()
    chosen = cases(options.kind or KINDS, options.cases, options.seed)
    with bench(options.folder.resolve(), options.limit) as ready:
        if options.cases == 1:
            finding, _ = ready.run(chosen[0], keep=True)
            print(f"{finding.verdict}: {finding.detail}" if finding else "as it should be")
            sys.exit(finding is not None)
        tally = ready.tally(tqdm(chosen, disable=None))
    print(report(tally))
    sys.exit(bool(tally.findings))


if __name__ == "__main__":
    main()
