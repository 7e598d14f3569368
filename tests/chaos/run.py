"""Mishaps at random, one after the other, until the study has ended; then the verdict."""

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.postgres import Server

from .mishaps import MISHAPS
from .sweep import Sweep
from .verdict import check


def run(
    corpus: Path, folder: Path, times: int, seed: int, trials: int, announce: Callable[[str], None] = lambda _: None
) -> str:
    """Let so many mishaps happen to a study; what came out, in words.

    Between two of them a trial ends at least, so that a slow machine gets on as well.

    Args:
        corpus: manifests to train and to score on.
        folder: where the study is run.
        times: mishaps; every kind is as frequent as the others.
        seed: of their order and moments.
        trials: of the study.
        announce: takes a line about each.

    Raises:
        AssertionError: something was lost, or is left over.
    """
    dice, begun = random.Random(seed), time.monotonic()
    ahead = [list(MISHAPS)[index % len(MISHAPS)] for index in range(times)]
    dice.shuffle(ahead)
    with _server() as server:
        sweep = Sweep(corpus, folder, server.database("chaos"), trials, seed)
        try:
            for number, name in enumerate(ahead):
                assert sweep.until_another_ends(), f"the study ended after {number} mishaps; ask for more trials"
                time.sleep(dice.uniform(0, 2))
                announce(f"{time.monotonic() - begun:5.0f} s, {len(sweep.seen)} trials have ended: {name}")
                MISHAPS[name](sweep, server, dice)
            while sweep.until_another_ends():
                pass
            found = check(sweep)
        finally:
            sweep.stop()
    codes = ", ".join(f"{count} x {code}" for code, count in sorted(sweep.codes.items()))
    return f"{times} mishaps in {time.monotonic() - begun:.0f} s: {found}; exit codes of the sweep: {codes}"


@contextmanager
def _server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # a short path: sockets have no room for long ones
    server = Server(folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
