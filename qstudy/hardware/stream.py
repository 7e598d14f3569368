"""An utterance on the device, event by event: frames arrive, work queues when computing is behind.

The device serves work in the order of arrival. An operator with a period of p ms gets its next input every p ms of
speech; labels are spread evenly over the joint periods. When speech ends, the last frames and the silence that follows
(`tail_ms`, made by the recognizer, not waited for) are at hand at once; a chunk that they do not fill is computed with
the frames that there are, for their share of its cost. User-perceived latency is the time from the end of speech to
the last result.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qstudy.errors import UserError
from qstudy.hardware.workload import Operator

HOP_MS = 10.0  # frames arrive this often
SHORTEST_S = 0.001
EPSILON = 1e-6
"""Frames: times in seconds and milliseconds differ by rounding."""
LONGEST_S = 3600.0  # an utterance is priced arrival by arrival


@dataclass(frozen=True)
class Speech:
    """Utterances to price: how long they are, and how many labels they hold."""

    durations_s: tuple[float, ...]
    labels: tuple[int, ...]
    tail_ms: float = 300.0
    """Silence that the recognizer appends, so that the last word can be emitted."""

    def __post_init__(self) -> None:
        if not self.durations_s or len(self.durations_s) != len(self.labels):
            raise UserError(
                f"speech: {len(self.durations_s)} durations and {len(self.labels)} label counts; give one of each."
            )
        if not all(SHORTEST_S <= duration <= LONGEST_S for duration in self.durations_s):
            raise UserError(f"speech: every duration must be {SHORTEST_S:g} to {LONGEST_S:g} s.")
        if min(self.labels) < 0 or not 0 <= self.tail_ms <= 1000 * LONGEST_S:
            raise UserError(f"speech: label counts must be at least 0, the tail 0 to {1000 * LONGEST_S:g} ms.")


REFERENCE = Speech((4.0,), (48,))
"""One utterance of 4 s with 48 labels: the default of every latency budget."""


def runs_per_second(operators: Sequence[Operator], speech: Speech) -> np.ndarray:
    """How often each operator runs per second of speech (N,)."""
    labels = sum(speech.labels) / sum(speech.durations_s)
    frames = [operator.share * 1000 / operator.every_ms if operator.every_ms else 0.0 for operator in operators]
    return np.array(frames) + labels * np.array([operator.per_label for operator in operators])


def joint_period_ms(operators: Sequence[Operator]) -> float | None:
    """How often the joiner has a frame; where none is told apart, as when a search runs it on frames alone, what comes
    most seldom of all frames; None: nothing is driven by frames."""
    joint = max((op.every_ms for op in operators if op.every_ms and op.per_label), default=None)
    return joint or max((op.frame_ms for op in operators if op.frame_ms), default=None)


def schedule(
    operators: Sequence[Operator], duration_s: float, labels: int, tail_ms: float
) -> tuple[np.ndarray, np.ndarray]:
    """When work arrives, and last the end of speech: times (S,) in seconds, runs of each operator at each (N, S)."""
    end = 1000 * duration_s
    ticks = np.append(np.arange(HOP_MS, end, HOP_MS), end)
    heard = np.append(ticks[:-1], end + tail_ms)  # audio in hand after each arrival
    period = joint_period_ms(operators) or HOP_MS
    periods = _whole(heard / period)
    emitted = np.floor(labels * periods / max(periods[-1], 1.0))
    emitted[-1] = labels
    done = np.stack([_runs_so_far(operator, heard, emitted) for operator in operators])
    runs = np.diff(done, axis=1, prepend=0.0)
    busy = runs.sum(axis=0) > 0
    busy[-1] = True  # the end of speech, whether or not work is left then
    return ticks[busy] / 1000, runs[:, busy]


def _runs_so_far(operator: Operator, heard: np.ndarray, emitted: np.ndarray) -> np.ndarray:
    frames = _whole(heard / operator.frame_ms) if operator.frame_ms else np.zeros_like(heard)
    runs = operator.share * in_chunks(frames, operator.chunk) + operator.per_label * emitted
    if operator.after_end:
        runs[:-1] = 0.0
    return runs


def _whole(frames: np.ndarray) -> np.ndarray:
    return np.floor(frames + EPSILON)


def in_chunks(frames: np.ndarray, chunk: int) -> np.ndarray:
    """Runs after each arrival (S,) of what takes `chunk` frames a run, of which so many (S,) have come: whole ones
    until speech ends, then the rest, too."""
    return np.append(frames[:-1] // chunk, frames[-1] / chunk)


def latency_s(total_s: np.ndarray, times: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """User-perceived latency (C,) of one utterance in seconds.

    Args:
        total_s: seconds per run of each operator (C, N).
        times: arrivals (S,) in seconds; the last one is the end of speech.
        runs: runs of each operator per arrival (N, S).
    """
    work = total_s @ runs  # (C, S)
    # One server: the last result comes after the worst arrival's time and all work from there on.
    remaining = np.cumsum(work[:, ::-1], axis=1)[:, ::-1]
    return (times + remaining).max(axis=1) - times[-1]
