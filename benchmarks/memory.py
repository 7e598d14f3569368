"""Rows: memory that the RNN-T loss needs on top of its logits, forward and backward; each side in its own process."""

import math
import subprocess
import sys
from collections.abc import Iterable

from benchmarks.problem import SHAPES, size_text
from benchmarks.row import Row

MEBIBYTE = 2**20
FLOAT_BYTES = 4


def rows() -> Iterable[Row]:
    """One row per size; the floor is the gradient, which someone must hold."""
    for shape in SHAPES:
        batch, frames, labels, size = shape
        yield Row(
            what=f"RNN-T loss, memory, {size_text(shape)}",
            unit="MiB",
            peer="torchaudio",
            ours=peak("loss", "ours", *shape),
            theirs=peak("loss", "torchaudio", *shape),
            reference_is="gradient",
            reference=math.prod((batch, frames, labels + 1, size)) * FLOAT_BYTES / MEBIBYTE,
        )


def peak(subject: str, side: str, *shape: int) -> float:
    """Measure one side in a fresh process; MiB."""
    command = [sys.executable, "-m", "benchmarks.peak", subject, side, *map(str, shape)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / MEBIBYTE
