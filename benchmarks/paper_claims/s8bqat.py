"""Zhen et al. 2022: sub-8-bit weights on 8-bit hardware; the paper says a larger model and latency 5 % better."""

from dataclasses import dataclass

import numpy as np

from benchmarks.paper_claims.models import in_bits, megabytes, scaled, sizes, with_bandwidth
from qstudy.hardware.accelerator import Accelerator, load_accelerator
from qstudy.hardware.simulator import simulate

PAPER_SAVING = 0.05
PAIRS = (("small", "edge_nna"), ("on_device", "mobile_npu"))  # model, accelerator
BITS = (7, 6, 5, 4, 3, 2)
BANDWIDTHS = tuple(float(b) for b in np.geomspace(0.1, 200, 25))  # GB/s


@dataclass(frozen=True)
class Larger:
    """The largest model of the same shape that is 5 % faster than the 8-bit one."""

    bits: int
    parameters: float
    """Over those of the 8-bit model."""
    footprint: float
    """Over that of the 8-bit model."""


@dataclass(frozen=True)
class S8BQAT:
    """Our figures for one model on one accelerator."""

    model: str
    accelerator: str
    latency_ms: float
    """With 8-bit weights."""
    dram_gb_per_s: float
    """The profile's own bandwidth."""
    saving: dict[int, float]
    """Bits -> latency saved by the same model, as a share."""
    curve: dict[int, list[float]]
    """Bits -> latency saved, along `BANDWIDTHS`."""
    larger: list[Larger]


def price() -> list[S8BQAT]:
    """Price each model on its accelerator."""
    return [_price(model, load_accelerator(accelerator)) for model, accelerator in PAIRS]


def _price(name: str, accelerator: Accelerator) -> S8BQAT:
    shapes = sizes(name).shapes

    def latency_ms(weight: int, device: Accelerator = accelerator, factor: float = 1.0) -> float:
        return simulate(in_bits(scaled(shapes, factor) if factor != 1 else shapes, weight), device).latency_ms

    base = latency_ms(8)
    curve: dict[int, list[float]] = {bits: [] for bits in BITS}
    for bandwidth in BANDWIDTHS:
        device = with_bandwidth(accelerator, bandwidth)
        slow = latency_ms(8, device)
        for bits in BITS:
            curve[bits].append(1 - latency_ms(bits, device) / slow)
    larger = []
    for bits in BITS:
        factors = [f for f in np.arange(1.0, 2.6, 0.02) if latency_ms(bits, factor=f) <= (1 - PAPER_SAVING) * base]
        if factors:
            grown = scaled(shapes, factors[-1])
            parameters = sum(s.parameters for s in grown) / sum(s.parameters for s in shapes)
            larger.append(Larger(bits, parameters, megabytes(grown, bits) / megabytes(shapes, 8)))
    saving = {bits: 1 - latency_ms(bits) / base for bits in BITS}
    own = accelerator.memory.dram_gb_per_s
    return S8BQAT(name, accelerator.name, base, own, saving, curve, larger)
