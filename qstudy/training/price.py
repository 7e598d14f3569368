"""What a run costs, known before it is trained: bytes and simulated latency."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from qstudy.bits import FLOAT, BitMap, LayerBits, LayerShape
from qstudy.errors import UserError
from qstudy.hardware.accelerator import load_accelerator
from qstudy.hardware.simulator import simulate
from qstudy.hardware.size import layer_bytes, size_bytes
from qstudy.hardware.workload import workload
from qstudy.model import RNNT
from qstudy.model.shapes_only import shapes_only
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
        """Mean bits per weight, and bits of activations where some are quantized, for tables: `W3.4 A8`, `float`."""
        counted = [
            (bits.weight, sum(map(prod, shape.matrices)))
            for shape in self.shapes
            if (bits := self.bit_map.get(shape.name))
        ]
        parameters = sum(count for _, count in counted) or 1
        weights = sum(bits * count for bits, count in counted) / parameters
        activations = sorted({bits.activation for bits in self.bit_map.values()} - {FLOAT})
        told = [f"W{weights:.3g}"] if 0 < weights < FLOAT else []
        return " ".join([*told, *(f"A{'/'.join(map(str, activations))}" for _ in activations[:1])]) or "float"


def price(config: RunConfig, usage: Mapping[str, Any] | None = None) -> Price:
    """Size and latency of the configured model under its policy; milliseconds, no training, no audio.

    Args:
        config: the run.
        usage: how often the layers of an amortized encoder ran, from a record; None: as often as is expected.

    Raises:
        UserError: a pattern that matches nothing, an unknown policy or accelerator, a model too large to be trained, a
            training that ends before activations are quantized.
    """
    with shapes_only():
        model = RNNT(config.model, config.features, label_count(config))
    if usage is not None and model.encoder.branching is not None:
        model.encoder.branching.adopt_usage(usage)
    shapes = model.shapes()
    require_trainable(shapes)
    policy = build_policy(config.policy)
    policy.require_steps(config.schedule.steps)
    return price_layers(shapes, policy.bit_map(shapes), config)


def require_trainable(shapes: Sequence[LayerShape]) -> None:
    """Raise UserError where a model is too large to be trained; known before any of it is allocated."""
    if (count := sum(shape.parameters for shape in shapes)) > MOST_PARAMETERS:
        raise UserError(
            f"model: {count:.3g} parameters ({count * 4 / 1e9:,.3g} GB in float32) are more than the "
            f"{MOST_PARAMETERS:,} that are allowed; make its layers smaller."
        )


def price_layers(shapes: list[LayerShape], bit_map: BitMap, config: RunConfig) -> Price:
    """The same of layers that are known: those of a trained model, which may know better how often each runs."""
    latency = {
        name: simulate(workload(shapes, bit_map), load_accelerator(name)).summary() for name in config.accelerator
    }
    return Price(bit_map, shapes, size_bytes(shapes, bit_map), latency)


def describe_price(cost: Price) -> dict[str, Any]:
    """The record's entries that are known before training."""
    return {**describe_layers(cost.shapes, cost.bit_map), "latency": cost.latency}


def describe_layers(shapes: Sequence[LayerShape], bit_map: BitMap) -> dict[str, Any]:
    """What the record of any model says of its layers: widths and bytes, of each and of all."""
    layers = {
        shape.name: {
            "kind": shape.kind,
            "parameters": shape.parameters,
            "bytes": layer_bytes(shape, bit_map.get(shape.name, LayerBits())),
        }
        for shape in shapes
    }
    widths = {name: bits.to_dict() for name, bits in bit_map.items()}
    return {"bit_map": widths, "layers": layers, "size_bytes": size_bytes(shapes, bit_map)}
