"""`python -m tests.chaos --times 20 --seed 0`: a study of 30 trials, and twenty mishaps at random."""

import argparse
import tempfile
from pathlib import Path

from qstudy.data.corpora.commands import commands

from .run import run


def main() -> None:
    """An AssertionError tells what was lost; the folder stays then."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="mishaps")
    parser.add_argument("--seed", type=int, default=0, help="of what happens when")
    parser.add_argument("--trials", type=int, default=30, help="of the study; a trial must end between two mishaps")
    parser.add_argument("--folder", type=Path, help="an empty one, which stays; by default one that is removed")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="qstudy-chaos-"))
    commands(folder / "corpus", train=24, dev=6, test=6, processes=1)
    print(run(folder / "corpus", folder, options.times, options.seed, options.trials, print))


if __name__ == "__main__":
    main()
