"""Rows: memory that the RNN-T loss needs on top of its logits, forward and backward; each side in its own process."""

import math
import subprocess
import sys
from collections.abc import Iterable

from benchmarks.problem import SHAPES
from benchmarks.row import Row

MEBIBYTE = 2**20
FLOAT_BYTES = 4


def rows() -> Iterable[Row]:
    """One row per size; the floor is the gradient, which someone must hold."""
    for batch, frames, labels, size in SHAPES:
        yield Row(
            what=f"RNN-T loss, memory above the logits, (B, T, U, V) = {(batch, frames, labels, size)}",
            unit="MiB",
            peer="torchaudio",
            ours=peak("ours", batch, frames, labels, size),
            theirs=peak("torchaudio", batch, frames, labels, size),
            floor_is="the gradient",
            floor=math.prod((batch, frames, labels + 1, size)) * FLOAT_BYTES / MEBIBYTE,
        )


def peak(side: str, *shape: int) -> float:
    """Measure one side in a fresh process; MiB."""
    command = [sys.executable, "-m", "benchmarks.peak", side, *map(str, shape)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / MEBIBYTE
