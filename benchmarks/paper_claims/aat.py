"""Shakiah et al. 2023: no error-prone operators on the CPU; the paper says engine latency 5 to 7 % better."""

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.paper_claims.models import sizes, widths
from qstudy.hardware.accelerator import Accelerator, load_accelerator
from qstudy.hardware.simulator import simulate
from qstudy.hardware.workload import workload

PAPER_SAVING = (0.05, 0.07)
PAIRS = (("small", "edge_nna"), ("on_device", "mobile_npu"))  # model, accelerator
PLACEMENTS = {
    "all LSTM cells": ["*/cell"],
    "cells of the encoder's first layer": ["encoder.0/cell"],
    "cells of the prediction network": ["predictor*/cell"],
    "the joiner's output": ["joiner.output"],
}
HANDOVERS_US = tuple(float(x) for x in np.geomspace(0.1, 300, 36))


@dataclass(frozen=True)
class AAT:
    """Our figures for one model on one accelerator."""

    model: str
    accelerator: str
    latency_ms: float
    """With every operator on the accelerator."""
    handover_us: float
    """The profile's own cost of a hand-over, one direction."""
    saving: dict[str, float]
    """What was on the CPU -> latency saved by bringing it back, as a share."""
    curve: dict[str, list[float]]
    """The same, along `HANDOVERS_US`."""

    def claimed_at_us(self, placement: str) -> tuple[float, float] | None:
        """Between which costs of a hand-over the saving is what the paper says; None where it never is."""
        curve = self.curve[placement]
        if curve[-1] < PAPER_SAVING[0] or curve[0] > PAPER_SAVING[1]:
            return None
        low, high = np.interp(PAPER_SAVING, curve, HANDOVERS_US)
        return float(low), float(high)


def price() -> list[AAT]:
    """Price each model on its accelerator."""
    return [_price(model, load_accelerator(accelerator)) for model, accelerator in PAIRS]


def _price(name: str, accelerator: Accelerator) -> AAT:
    shapes = sizes(name).shapes
    bits = widths(shapes, 8, 8)
    assert accelerator.handover
    base = simulate(workload(shapes, bits), accelerator).latency_ms

    def saving(placement: str, handover_us: float) -> float:
        assert accelerator.handover
        device = replace(accelerator, handover=replace(accelerator.handover, latency_us=handover_us))
        placed = workload(shapes, bits, cpu_operators=PLACEMENTS[placement])
        return 1 - base / simulate(placed, device).latency_ms

    own = accelerator.handover.latency_us
    return AAT(
        name,
        accelerator.name,
        base,
        own,
        saving={placement: saving(placement, own) for placement in PLACEMENTS},
        curve={placement: [saving(placement, us) for us in HANDOVERS_US] for placement in PLACEMENTS},
    )
