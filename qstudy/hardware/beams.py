"""Latency over beam widths, in several widths of the numbers: what fewer bits buy in hypotheses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qstudy.bits import BitMap
from qstudy.hardware.accelerator import Accelerator
from qstudy.hardware.model_shapes import Sizes
from qstudy.hardware.search import GREEDY, Search
from qstudy.hardware.simulator import candidate_latencies_ms
from qstudy.hardware.stream import REFERENCE, Speech


@dataclass(frozen=True)
class BeamCurves:
    """User-perceived latencies of one model on one device."""

    model: str
    accelerator: str
    beams: tuple[int, ...]
    latency_ms: dict[str, tuple[float | None, ...]]
    """Name of the widths -> median latency at each beam; None: the device does not compute in them, or nobody says how
    often some layer runs."""


def beam_curves(
    sizes: Sizes,
    bit_maps: Mapping[str, BitMap],
    beams: Sequence[int],
    accelerator: Accelerator,
    search: Search = GREEDY,
    speech: Speech = REFERENCE,
) -> BeamCurves:
    """Price a model's search at several beams.

    Args:
        sizes: the model, with the language models that score its hypotheses.
        bit_maps: name of the widths -> widths.
        beams: hypotheses.
        accelerator: the device.
        search: how often hypotheses grow.
        speech: the utterances.
    """
    found = []
    for beam in beams:
        operators = sizes.workload(search=replace(search, beam=beam)).operators
        found.append(candidate_latencies_ms(operators, list(bit_maps.values()), accelerator, speech))
    curves = {
        name: tuple(float(ms) if np.isfinite(ms) else None for ms in column)
        for name, column in zip(bit_maps, np.stack(found, axis=1), strict=True)
    }
    return BeamCurves(sizes.name, accelerator.name, tuple(beams), curves)
