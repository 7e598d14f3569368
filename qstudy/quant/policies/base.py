"""A policy decides, for every named layer, in which arithmetic it computes."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qstudy.bits import FLOAT, WITHOUT_PRODUCTS, BitMap, BitPatterns, LayerBits, LayerShape, resolve
from qstudy.errors import UserError, naming
from qstudy.quant.arithmetic import TrainingArithmetic
from qstudy.quant.layers import Quantizable, quantizable
from qstudy.quant.quantizers.base import activation_quantizers

Refusal = tuple[str, Any, str]
"""Field of `LayerBits` and its value in which a policy cannot compute, and the policies to use instead."""
NO_CODEBOOK: Refusal = ("quantizer", "codebook", "s8bqat")
NO_GROUPS: Refusal = ("granularity", "group", "fake_qat or ptq")


class QuantPolicy(ABC):
    """The plug-in point. A policy of your own overrides `arithmetic`, and whatever else it needs."""

    placement = "products"
    """Where layers run unless `layers` says otherwise (`LayerBits.placement`): a policy that does not train with the
    accelerator's own operators has to keep the error-prone ones on the CPU."""
    granularity = "channel"
    """Which weights share a scale unless `layers` says otherwise (`LayerBits.granularity`)."""
    trains = True
    """Whether fine-tuning follows; False: calibration alone."""
    passes_gradients = True
    """Whether its quantizers pass gradients to the weights; False: their integers are chosen once."""
    switchable = True
    """Whether a layer may hold several of its arithmetics (`switchable`): False if it looks for them in slots."""
    refuses: tuple[Refusal, ...] = ()
    """What `layers` may not ask for."""
    total_steps: int | None = None
    """Optimizer steps of the run, for schedules in shares of it; set by who runs it, before `calibrate`."""

    def __init__(self, layers: BitPatterns | None = None) -> None:
        """Args: ordered glob patterns over layer names -> widths; the last match wins (`qstudy.bits.resolve`)."""
        self.layers = layers or {}

    def bit_map(self, shapes: Iterable[LayerShape]) -> BitMap:
        """Layer name -> widths: the single source for size, latency, search space and tables.

        Raises:
            UserError: a pattern that matches no layer, or asks for what this policy refuses.
        """
        return self.checked(self.resolved(list(shapes)))

    def resolved(self, shapes: Sequence[LayerShape]) -> BitMap:
        """What `layers` says of each layer, in the widths that this layer has."""
        default = LayerBits(granularity=self.granularity, placement=self.placement)
        bit_map = resolve(self.layers, shapes, default)
        return {shape.name: self.widths(shape, bit_map[shape.name]) for shape in shapes if shape.quantizable}

    def widths(self, shape: LayerShape, bits: LayerBits) -> LayerBits:
        """What these widths mean for a layer: without matrices it has no width of weights, and what is no product
        stays in float."""
        if shape.matrices:
            return bits
        activation = FLOAT if shape.kind in WITHOUT_PRODUCTS else bits.activation
        return LayerBits(activation=activation, placement=bits.placement)

    def checked(self, bit_map: BitMap) -> BitMap:
        """The same map, if there is nothing in it that this policy refuses; raises as `bit_map`."""
        for name, bits in bit_map.items():
            for field, value, others in self.refuses:
                if getattr(bits, field) == value:
                    raise UserError(
                        f"layers: {name}: {field}: {self._called} has no {value}; use {others}, or leave it."
                    )
        return bit_map

    @abstractmethod
    def arithmetic(self, layer: Quantizable, bits: LayerBits) -> TrainingArithmetic:
        """How `layer` computes at these widths; asked only for layers with something to quantize."""

    def prepare(self, model: nn.Module, bit_map: BitMap | None = None) -> None:
        """Fill the slots, on the device where each layer lies.

        Args:
            model: of quantizable layers.
            bit_map: what `bit_map` gave for them, if it was asked before.

        Raises:
            UserError: a layer's widths are none of this policy's, or none in which its packed arithmetic runs such a
                layer; or its weights are not finite.
        """
        layers, anywhere = quantizable(model), next(model.parameters())
        if bit_map is None:
            bit_map = self.bit_map(layer.shape(name) for name, layer in layers.items())
        for name, layer in layers.items():
            bits = bit_map[name]
            device = next(layer.parameters(), anywhere).device
            require_finite(layer.matrices(), name)
            layer.arithmetic = self._fitting(layer, layer.shape(name), bits).to(device) if bits.quantized else None
            for quantizer in activation_quantizers(layer):
                quantizer.layer = name

    def _fitting(self, layer: Quantizable, shape: LayerShape, bits: LayerBits) -> TrainingArithmetic:
        """The layer's arithmetic; that no device could run it is said now, not when all training is done."""
        arithmetic = self.arithmetic(layer, bits)
        with naming(self._called, "change the widths in `layers`, or what the policy makes of them."):
            arithmetic.packed.require_taken(shape, bits)
        return arithmetic

    @property
    def _called(self) -> str:
        name: str = getattr(self, "name", type(self).__name__)
        return name

    def calibrate(self, model: nn.Module, passes: Iterable[None]) -> None:  # noqa: B027
        """Fit quantizers to the trained model before fine-tuning; each of `passes` runs the model over one batch.

        Here there is nothing to fit.
        """

    def notes(self) -> dict[str, Any]:
        """What the policy chose by itself, JSON-able, for the run's record; asked after the training."""
        return {}

    def penalty(self, model: nn.Module, step: int) -> Tensor:
        """Extra loss at a step, () float32."""
        return torch.zeros((), device=next(model.parameters()).device)

    def project_(self, model: nn.Module, step: int) -> None:  # noqa: B027
        """Change the model in place after an optimizer step: compressors, annealing, observers.

        It is called again at the step where a training goes on, and before the model is packed: what it changes has to
        follow from the step and the model, so that the same call a second time changes nothing.
        """


def require_finite(matrices: Iterable[Tensor], layer: str) -> None:
    """Raise UserError if a weight is infinite or no number: quantizers would make some number of it."""
    if not all(matrix.isfinite().all() for matrix in matrices):
        raise UserError(f"{layer}: its weights hold a number that is not finite; train with a lower learning rate.")
