"""User-perceived latency against a plain event loop."""

import math

import numpy as np
import pytest
from digits_shapes import DIGITS
from hypothesis import given, settings
from hypothesis import strategies as st

from qstudy.errors import UserError
from qstudy.hardware.stream import Speech, latency_s, schedule
from qstudy.hardware.workload import Operator, workload

OPERATORS = workload(DIGITS, {}).operators


def event_loop(seconds: np.ndarray, times: np.ndarray, runs: np.ndarray) -> float:
    """Serve one run after the other, each when it has arrived and the one before is done."""
    clock = 0.0
    for arrival, counts in zip(times, runs.T, strict=True):
        for cost, count in zip(seconds, counts, strict=True):
            for _ in range(int(count)):
                clock = max(clock, arrival) + cost
    return max(clock, times[-1]) - times[-1]


@settings(max_examples=40, deadline=None)
@given(st.floats(0.005, 4), st.integers(0, 60), st.floats(0, 500), st.integers(0, 10**6))
def test_latency_equals_an_event_loop(duration_s: float, labels: int, tail_ms: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    seconds = generator.exponential(generator.choice([1e-4, 3e-3, 2e-2]), len(OPERATORS))
    times, runs = schedule(OPERATORS, duration_s, labels, tail_ms)
    expected = event_loop(seconds, times, runs)
    assert latency_s(seconds[None], times, runs)[0] == pytest.approx(expected, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.005, 8), st.integers(0, 100), st.floats(0, 500))
def test_schedule_runs_every_frame_and_label_once(duration_s: float, labels: int, tail_ms: float) -> None:
    times, runs = schedule(OPERATORS, duration_s, labels, tail_ms)
    assert (np.diff(times) > 0).all()
    assert times[-1] == pytest.approx(duration_s)
    assert (runs >= 0).all()
    audio_ms = 1000 * duration_s + tail_ms
    for operator, count in zip(OPERATORS, runs.sum(axis=1), strict=True):
        frames = audio_ms // operator.every_ms if operator.every_ms else 0
        assert count == frames + operator.per_label * labels


def test_frames_arrive_when_they_are_heard() -> None:
    operator = Operator("layer", "layer", 1, 1, every_ms=30.0)
    times, runs = schedule([operator], 0.1, 0, tail_ms=0.0)
    np.testing.assert_allclose(times[runs[0] > 0], [0.03, 0.06, 0.09])
    times, runs = schedule([operator], 0.1, 0, tail_ms=60.0)
    assert runs[0, -1] == 2  # the frames of the tail come at once


def test_amortized_branches_and_work_after_the_end() -> None:
    half = Operator("cheap", "cheap", 1, 1, every_ms=10.0, share=0.5)
    late = Operator("second pass", "second pass", 1, 1, every_ms=10.0, after_end=True)
    _, runs = schedule([half, late], 1.0, 0, tail_ms=0.0)
    assert runs[0].sum() == 50
    assert {*runs[0]} == {0.5}  # spread evenly
    assert runs[1].sum() == runs[1, -1] == 100


@pytest.mark.parametrize("late", [True, False], ids=["after the end", "as chunks fill"])
def test_the_last_chunk_has_the_frames_that_are_left(late: bool) -> None:
    operator = Operator("block", "block", 1, 1, every_ms=400.0, chunk=10, after_end=late)
    _, runs = schedule([operator], 0.25, 0, tail_ms=0.0)
    assert runs.sum() == 0.6  # 6 frames of 40 ms
    times, runs = schedule([operator], 1.0, 0, tail_ms=70.0)
    assert runs.sum() == pytest.approx(2.6)
    arrivals = [(1.0, 2.6)] if late else [(0.4, 1.0), (0.8, 1.0), (1.0, 0.6)]
    assert [(t, round(r, 9)) for t, r in zip(times, runs[0], strict=True) if r] == arrivals


def test_speech_is_checked() -> None:
    wrong = [
        ((), ()),
        ((1.0,), (1, 2)),
        ((0.0,), (1,)),
        ((1e-310,), (1,)),
        ((1.0,), (-1,)),
        ((math.nan,), (1,)),
        ((1e9,), (1,)),
    ]
    for durations, labels in wrong:
        with pytest.raises(UserError, match="speech"):
            Speech(durations, labels)


def test_frames_are_counted_whatever_a_time_is_rounded_to() -> None:
    """2.01 s are 2009.9999999999998 ms."""
    operator = Operator("every", "every", 1, 1, every_ms=30.0)
    for hundredths in range(3, 600, 3):
        _, runs = schedule([operator], hundredths / 100, 0, tail_ms=0.0)
        assert runs.sum() == hundredths // 3
