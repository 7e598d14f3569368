"""What a run costs, known before it is trained: bytes and simulated latency."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qstudy.bits import FLOAT, BitMap, LayerBits, LayerShape
from qstudy.errors import UserError
from qstudy.hardware.accelerator import load_accelerator
from qstudy.hardware.simulator import simulate
from qstudy.hardware.size import layer_bytes, size_bytes
from qstudy.hardware.workload import workload
from qstudy.model import RNNT
from qstudy.quant.policies import build_policy
from qstudy.training.assets import label_count
from qstudy.training.config import RunConfig

MOST_PARAMETERS = 2_000_000_000
"""Nothing larger is allocated: 8 GB in float32."""


@dataclass(frozen=True)
class Price:
    """What a configuration costs; known before training."""

    bit_map: BitMap
    shapes: list[LayerShape]
    size_bytes: int
    """Bytes of the packed model's tensors."""
    latency: dict[str, dict[str, Any]]
    """Per accelerator, the simulator's totals."""

    @property
    def widths(self) -> str:
        """Mean bits per weight and per activation, for tables: `W3.4 A8`; `float`."""
        counts = {shape.name: shape.parameters for shape in self.shapes}
        weights = {name: (bits.weight, counts[name]) for name, bits in self.bit_map.items()}
        activations = {name: (bits.activation, 1) for name, bits in self.bit_map.items()}
        means = [_mean(list(some.values())) for some in (weights, activations)]
        told = [f"{letter}{mean:.2g}" for letter, mean in zip("WA", means, strict=True) if mean < FLOAT]
        return " ".join(told) or "float"


def _mean(values: Sequence[tuple[int, int]]) -> float:
    """Of widths, each as often as it counts; of none that of float."""
    total = sum(count for _, count in values)
    return sum(bits * count for bits, count in values) / total if total else FLOAT


def price(config: RunConfig) -> Price:
    """Size and latency of the configured model under its policy; milliseconds, no training, no audio.

    Raises:
        UserError: a pattern that matches nothing, an unknown policy or accelerator, a model too large to be trained.
    """
    with torch.device("meta"):
        model = RNNT(config.model, config.features, label_count(config))
    shapes = model.shapes()
    if (count := sum(shape.parameters for shape in shapes)) > MOST_PARAMETERS:
        raise UserError(
            f"model: {count:.3g} parameters ({count * 4 / 1e9:,.3g} GB in float32) are more than the "
            f"{MOST_PARAMETERS:,} that are possible; make its layers smaller."
        )
    return price_layers(shapes, build_policy(config.policy).bit_map(shapes), config)


def price_layers(shapes: list[LayerShape], bit_map: BitMap, config: RunConfig) -> Price:
    """The same of layers that are known: those of a trained model, which may know better how often each runs."""
    latency = {
        name: simulate(workload(shapes, bit_map), load_accelerator(name)).summary() for name in config.accelerator
    }
    return Price(bit_map, shapes, size_bytes(shapes, bit_map), latency)


def describe_price(cost: Price) -> dict[str, Any]:
    """The record's entries that are known before training."""
    layers = {
        shape.name: {
            "kind": shape.kind,
            "parameters": shape.parameters,
            "bytes": layer_bytes(shape, cost.bit_map.get(shape.name, LayerBits())),
        }
        for shape in cost.shapes
    }
    bit_map = {name: bits.to_dict() for name, bits in cost.bit_map.items()}
    return {"bit_map": bit_map, "layers": layers, "size_bytes": cost.size_bytes, "latency": cost.latency}
