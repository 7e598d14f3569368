"""The backlog of one utterance whose layers do not run on every frame: bursts of expensive frames queue up.

The simulator spreads the runs of such a layer evenly (`Operator.share`); here it is known on which frames each one ran.
Source: Macoskey et al. 2021, arXiv 2108.01553: frames that come faster than they are computed wait.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from qstudy.bits import matching
from qstudy.errors import UserError
from qstudy.hardware.accelerator import Accelerator
from qstudy.hardware.simulator import simulate
from qstudy.hardware.stream import EPSILON, Speech, in_chunks, schedule
from qstudy.hardware.workload import Operator, Workload


@dataclass(frozen=True)
class Backlog:
    """How far computing is behind the audio."""

    times_s: np.ndarray
    """When work arrives (S,)."""
    delays_s: np.ndarray
    """How long after its arrival each work is done (S,)."""

    @property
    def worst_ms(self) -> float:
        """The largest delay."""
        return 1e3 * float(self.delays_s.max())

    @property
    def latency_ms(self) -> float:
        """User-perceived latency: from the end of speech to the last result."""
        return 1e3 * float(self.delays_s[-1])


def backlog(
    workload: Workload,
    accelerator: Accelerator,
    taken: Mapping[str, np.ndarray],
    duration_s: float,
    labels: int,
    tail_ms: float = 300.0,
) -> Backlog:
    """Follow one utterance through the device.

    Args:
        workload: operators with their widths.
        accelerator: the device.
        taken: glob patterns of layers -> on which of their frames they ran (T,) bool; beyond T they do not run. Layers
            without a pattern run on every frame, or on their share.
        duration_s: of the utterance.
        labels: that it holds.
        tail_ms: silence that the recognizer appends.

    Raises:
        UserError: a pattern matches no layer or one that is not driven by frames, or the device refuses the workload.
    """
    names = list(dict.fromkeys(operator.layer for operator in workload.operators))
    for pattern in taken:
        matching(pattern, names, "taken")
    frames_of = [_frames(operator, taken) for operator in workload.operators]
    pairs = list(zip(workload.operators, frames_of, strict=True))
    always = [op if ran is None else replace(op, share=1.0) for op, ran in pairs]  # no frame is skipped
    times, runs = schedule(always, duration_s, labels, tail_ms)
    heard_ms = 1000 * times
    heard_ms[-1] += tail_ms
    priced = list(workload.operators)
    for row, (operator, ran) in enumerate(pairs):
        if ran is not None and (frames := runs[row].sum()):
            runs[row] = _runs_at(operator, ran, heard_ms)
            priced[row] = replace(operator, share=min(runs[row].sum() / frames, 1.0))
    speech = Speech((duration_s,), (labels,), tail_ms)
    report = simulate(replace(workload, operators=tuple(priced)), accelerator, speech)
    seconds = {operator.name: 1e-6 * operator.us for operator in report.operators}
    work = [seconds[operator.name] * ran for operator, ran in zip(priced, runs, strict=True) if ran.any()]
    return Backlog(times, _delays(times, np.sum(work, axis=0)))


def _frames(operator: Operator, taken: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """On which frames an operator ran; None: nobody says. The last pattern wins."""
    found = [frames for pattern, frames in taken.items() if fnmatchcase(operator.layer, pattern)]
    if found and (operator.every_ms is None or operator.per_label):
        raise UserError(f"taken: {operator.layer} is not driven by frames alone; name layers of the encoder.")
    return np.asarray(found[-1], bool) if found else None


def _runs_at(operator: Operator, frames: np.ndarray, heard_ms: np.ndarray) -> np.ndarray:
    """Runs per arrival, after which `heard_ms` (S,) of audio are in hand."""
    so_far = np.concatenate([[0], np.cumsum(frames)])
    count = np.floor(heard_ms / (operator.frame_ms or 1.0) + EPSILON).astype(int)
    done = in_chunks(so_far[np.minimum(count, len(frames))], operator.chunk)
    if operator.after_end:
        done[:-1] = 0
    return np.diff(done, prepend=0)


def _delays(times: np.ndarray, work: np.ndarray) -> np.ndarray:
    """One server, in the order of arrival: when the work of each arrival is done, less when it came."""
    done, delays = 0.0, np.empty(len(times))
    for index, (arrival, seconds) in enumerate(zip(times, work, strict=True)):
        done = max(done, arrival) + seconds
        delays[index] = done - arrival
    return delays
