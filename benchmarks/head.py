"""Rows: the transducer's head, forward and backward: time, and memory on top of both sides and the output layer."""

from collections.abc import Iterable
from functools import partial

from benchmarks.head_problem import PEERS, SHAPES, SIDES, HeadProblem
from benchmarks.memory import MEBIBYTE, peak
from benchmarks.problem import size_text
from benchmarks.row import Row
from benchmarks.timing import interleaved

ROUNDS = 5


def rows() -> Iterable[Row]:
    """One row per size and peer of time, then of memory."""
    for shape in SHAPES:
        problem = HeadProblem.random(*shape)
        times = interleaved({name: partial(side, problem) for name, side in SIDES.items()}, ROUNDS)
        for peer in PEERS:
            what = f"transducer's head, {size_text(shape)}"
            yield Row(what, "ms", peer, times["ours"], times[peer], "3 products", times["products"])
    for shape in SHAPES:
        ours = peak("head", "ours", *shape)
        gradients = sum(each.numel() * each.element_size() for each in tensors(shape)) / MEBIBYTE
        for peer in PEERS:
            theirs = peak("head", peer, *shape)
            what = f"transducer's head, memory, {size_text(shape)}"
            yield Row(what, "MiB", peer, ours, theirs, "gradients", gradients)


def tensors(shape: tuple[int, ...]) -> Iterable:
    """What gets a gradient."""
    problem = HeadProblem.random(*shape)
    return (*problem.sides, *problem.layer)
