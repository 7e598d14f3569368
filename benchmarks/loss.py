"""Rows: time of the RNN-T loss, forward and backward."""

from collections.abc import Iterable
from functools import partial

from benchmarks.problem import PEERS, SHAPES, SIDES, Problem, absent, size_text
from benchmarks.row import Row
from benchmarks.timing import interleaved

ROUNDS = 9


def rows() -> Iterable[Row]:
    """One row per size and peer."""
    for shape in SHAPES:
        problem = Problem.random(*shape)
        sides = {name: partial(side, problem) for name, side in SIDES.items() if name not in PEERS or not absent(name)}
        times = interleaved(sides, ROUNDS)
        for peer in PEERS:
            yield Row(
                what=f"RNN-T loss, {size_text(shape)}",
                unit="ms",
                peer=peer,
                ours=times["ours"],
                theirs=times.get(peer),
                reference_is="log_softmax",
                reference=times["reference"],
                skipped=absent(peer),
            )
