"""The backlog of one utterance: what was decided frame by frame, on the device."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_amortized import BRANCHES, arbitrated
from tiny import speech

from qstudy.bits import LayerBits, LayerShape
from qstudy.errors import UserError
from qstudy.hardware.accelerator import load_accelerator
from qstudy.hardware.backlog import Backlog, backlog
from qstudy.hardware.simulator import simulate
from qstudy.hardware.stream import Speech
from qstudy.hardware.workload import Workload, workload

EDGE = load_accelerator("edge_nna")
FRAMES, FRAME_MS = 100, 40.0  # 4 s


def layers(full_share: float = 0.5) -> list[LayerShape]:
    """The full branch takes 1.5 times as long as a frame lasts, so that half of the frames can have it, no more."""
    sizes = {"full": (15_000, full_share), "cheap": (100, 1 - full_share)}
    branches = [
        LayerShape(f"encoder.{name}", "linear", ((rows, 2048),), 0, 1, every_ms=FRAME_MS, share=share)
        for name, (rows, share) in sizes.items()
    ]
    return [*branches, LayerShape("joiner", "linear", ((64, 2048),), 0, 1, every_ms=80.0, per_label=1.0)]


def load(full_share: float = 0.5) -> Workload:
    shapes = layers(full_share)
    return workload(shapes, {shape.name: LayerBits(8, 8) for shape in shapes})


def followed(full: np.ndarray) -> Backlog:
    taken = {"encoder.full": full, "encoder.cheap": ~full}
    return backlog(load(), EDGE, taken, FRAMES * FRAME_MS / 1000, 10, tail_ms=0.0)


def test_what_runs_evenly_is_what_the_simulator_says() -> None:
    """Always and never; without decisions, the share."""
    speech = Speech((4.0,), (10,), 0.0)
    for share, full in ((1.0, np.ones(FRAMES, bool)), (0.0, np.zeros(FRAMES, bool))):
        assert followed(full).latency_ms == pytest.approx(simulate(load(share), EDGE, speech).latency_ms)
    assert backlog(load(), EDGE, {}, 4.0, 10, 0.0).latency_ms == pytest.approx(
        simulate(load(), EDGE, speech).latency_ms
    )


def test_a_burst_waits_and_is_caught_up() -> None:
    spread, burst = np.arange(FRAMES) % 2 == 0, np.arange(FRAMES) < FRAMES // 2
    evenly, first, last = followed(spread), followed(burst), followed(burst[::-1])
    [full, *_] = simulate(load(), EDGE).operators
    behind = 50 * (full.us / 1000 - FRAME_MS) + FRAME_MS
    assert first.worst_ms == pytest.approx(behind, rel=0.02)
    assert first.latency_ms < FRAME_MS  # the rest of the utterance is cheap
    assert last.worst_ms == last.latency_ms == pytest.approx(behind, rel=0.02)
    assert evenly.worst_ms < 2 * FRAME_MS


def test_the_tail_is_at_hand_when_speech_ends() -> None:
    full = np.arange(FRAMES) >= FRAMES - 5  # all in the tail of 200 ms
    taken = {"encoder.full": full, "encoder.cheap": ~full}
    found = backlog(load(), EDGE, taken, 3.8, 10, tail_ms=200.0)
    [operator, *_] = simulate(load(), EDGE).operators
    assert found.times_s[-1] == 3.8
    assert found.latency_ms == pytest.approx(5 * operator.us / 1000, rel=0.1)


def test_a_single_run_is_not_free() -> None:
    """Though it is so small a share of the frames that rounding down leaves none."""
    once = np.arange(2 * FRAMES) == 3  # decisions for more frames than the utterance has
    [full, cheap, _] = simulate(load(), EDGE).operators
    delays = [followed(each).delays_s for each in (once, np.zeros(2 * FRAMES, bool))]
    assert 1e6 * (delays[0] - delays[1]).max() == pytest.approx(full.us - cheap.us, rel=0.05)


def test_what_waits_for_the_end() -> None:
    """All of its frames are computed after it."""
    *branches, joiner = layers()
    shapes = [*(replace(shape, after_end=True) for shape in branches), joiner]
    spread = np.arange(FRAMES) % 2 == 0
    taken = {"encoder.full": spread, "encoder.cheap": ~spread}
    found = backlog(workload(shapes, load().bit_map), EDGE, taken, FRAMES * FRAME_MS / 1000, 10, tail_ms=0.0)
    [full, *_] = simulate(load(), EDGE).operators
    assert found.latency_ms == found.worst_ms > 50 * full.us / 1000
    assert found.delays_s[:-1].max() < 1e-3


def test_chunks_take_the_frames_that_ran() -> None:
    """Whole chunks as they fill, the rest at the end; on all frames or without decisions, as the simulator has it."""
    full, _, joiner = layers(1.0)
    shapes = [replace(full, frames=8), joiner]
    load_of_chunks = workload(shapes, {shape.name: LayerBits(8, 8) for shape in shapes})
    taken = {"encoder.full": np.ones(FRAMES, bool)}
    always, plain = (backlog(load_of_chunks, EDGE, each, 1.0, 10, tail_ms=50.0) for each in (taken, {}))
    np.testing.assert_allclose(always.delays_s, plain.delays_s)
    report = simulate(load_of_chunks, EDGE, Speech((1.0,), (10,), 50.0))
    assert always.latency_ms == pytest.approx(report.latency_ms)
    once = backlog(load_of_chunks, EDGE, {"encoder.full": np.arange(FRAMES) == 3}, 1.0, 10, tail_ms=50.0)
    assert once.latency_ms == pytest.approx(report.operators[0].us / 1000 / 8, rel=0.02)


def test_decisions_of_an_encoder() -> None:
    model = arbitrated(**BRANCHES[0])
    [features] = speech(batch=1)
    shapes = model.shapes()
    taken = model.encoder.taken(features)
    found = backlog(workload(shapes, {}), EDGE, taken, 0.8, 4, tail_ms=0.0)
    always = backlog(
        workload(shapes, {}), EDGE, {name: np.ones(40, bool) for name in taken if ".full." in name}, 0.8, 4, 0.0
    )
    assert 0 < found.worst_ms < always.worst_ms
    assert sum(int(each.sum()) for each in taken.values()) == 40 * 2
    assert torch.equal(torch.from_numpy(taken["encoder.layers.1.full.*"]), model.encoder.decisions(features)[:, 1])


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("decoder.*", "matches no layer"), ("predictor.*", "driven by frames"), ("joiner.*", "by frames alone")],
)
def test_what_is_no_branch(pattern: str, said: str) -> None:
    shapes = arbitrated(**BRANCHES[0]).shapes()
    with pytest.raises(UserError, match=said):
        backlog(workload(shapes, {}), EDGE, {pattern: np.ones(3, bool)}, 1.0, 3)
