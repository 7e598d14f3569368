"""A policy decides, for every named layer, in which arithmetic it computes."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from qstudy.bits import (
    FLOAT,
    WITHOUT_PRODUCTS,
    BitMap,
    BitPatterns,
    LayerBits,
    LayerShape,
    require_fitting_sums,
    resolve,
)
from qstudy.errors import UserError, naming
from qstudy.quant.arithmetic import TrainingArithmetic
from qstudy.quant.arithmetics.fake import FakeArithmetic, GroupedArithmetic
from qstudy.quant.layers import Quantizable, quantizable, training_slots
from qstudy.quant.quantizers import (
    ActivationQuantizer,
    FixedActivations,
    UniformActivations,
    UniformWeights,
    WeightQuantizer,
    activation_quantizers,
)

Step = Annotated[int, Ge(0), Le(10**9)]
"""Optimizer steps, counted from 0."""
Refusal = tuple[str, Any, str]
"""Field of `LayerBits` and its value in which a policy cannot compute, and the policies to use instead."""
NO_CODEBOOK: Refusal = ("quantizer", "codebook", "s8bqat")
NO_GROUPS: Refusal = ("granularity", "group", "fake_qat or ptq")


class QuantPolicy:
    """The plug-in point. A policy of your own overrides what it does in another way: `weight_quantizer`,
    `activation_quantizer` and `bounded_quantizer` say how tensors become integers, `assemble` what computes with them.

    By itself it is training in fake arithmetic: weights end at their maximum, activations at a moving average.
    """

    name: str
    """What messages call it: its name in the configuration, else its class's."""
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
    refuses: tuple[Refusal, ...] = (NO_CODEBOOK,)
    """What `layers` may not ask for: here what `weight_quantizer` does not make."""
    total_steps: int | None = None
    """Optimizer steps of the run, for schedules in shares of it; set by who runs it, before `calibrate`."""

    def __init__(
        self, layers: BitPatterns | None = None, activation_start: Step = 0, freeze_step: Step | None = None
    ) -> None:
        """
        Args:
            layers: ordered glob patterns over layer names -> widths; the last match wins (`qstudy.bits.resolve`).
            activation_start: activations stay in float, only observed, before this step.
            freeze_step: activation ranges stop moving at this step; None: never.

        Raises:
            UserError: a step below zero.
        """
        self.name = type(self).__name__
        self.layers = layers or {}
        self.activation_start = activation_start
        self.freeze_step = freeze_step

    def bit_map(self, shapes: Iterable[LayerShape]) -> BitMap:
        """Layer name -> widths: the single source for size, latency, search space and tables.

        Raises:
            UserError: a pattern that matches no layer, or asks for what this policy refuses.
        """
        shapes = list(shapes)
        return self.checked(self.resolved(shapes), shapes)

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

    def checked(self, bit_map: BitMap, shapes: Iterable[LayerShape]) -> BitMap:
        """The same map, if there is nothing in it that this policy refuses; raises as `bit_map`."""
        require_fitting_sums(bit_map, shapes)
        for name, bits in bit_map.items():
            for field, value, others in self.refuses:
                if getattr(bits, field) == value:
                    raise UserError(f"layers: {name}: {field}: {self.name} has no {value}; use {others}, or leave it.")
        return bit_map

    def arithmetic(self, layer: Quantizable, bits: LayerBits) -> TrainingArithmetic:
        """How `layer` computes at these widths; asked only for layers with something to quantize."""
        weights = [self.weight_quantizer(each, bits) if bits.weight != FLOAT else None for each in layer.matrices()]
        makers = [self.bounded_quantizer if bounded else self.activation_quantizer for bounded in layer.bounded]
        activations = [make(bits) for make in makers if bits.activation != FLOAT]
        return self.assemble(bits, weights, *activations)

    def weight_quantizer(self, matrix: Tensor, bits: LayerBits) -> WeightQuantizer:
        """That of one weight matrix (rows, columns)."""
        return UniformWeights(matrix, bits.weight, bits.granularity, "max", group=bits.group)

    def activation_quantizer(self, bits: LayerBits) -> ActivationQuantizer:
        """That of one activation of a layer of these widths."""
        return UniformActivations(bits.activation)

    def bounded_quantizer(self, bits: LayerBits) -> ActivationQuantizer:
        """That of one that is known to lie in [-1, 1]."""
        return FixedActivations(bits.activation)

    def assemble(
        self, bits: LayerBits, weights: Sequence[WeightQuantizer | None], *activations: ActivationQuantizer
    ) -> TrainingArithmetic:
        """The arithmetic that computes with quantizers.

        Args:
            bits: widths of the layer.
            weights: one for each matrix; None: it stays in float.
            activations: none where they stay in float, else of the inputs and, for an LSTM, of the hidden state; of
                both operands of a product.
        """
        made = GroupedArithmetic if bits.granularity == "group" else FakeArithmetic
        return made(weights, *activations)

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
        with naming(self.name, "change the widths in `layers`, or what the policy makes of them."):
            arithmetic.packed.require_taken(shape, bits)
        return arithmetic

    def calibrate(self, model: nn.Module, passes: Iterable[object]) -> None:
        """Fit quantizers to the trained model before fine-tuning; each of `passes` runs the model over one batch."""
        layers = quantizable(model)
        slots = [(slot, layers[name].matrices()) for name, slot in training_slots(model).items() if slot]
        if not slots:
            return
        for slot, matrices in slots:
            slot.calibrate(matrices)
        for quantizer in activation_quantizers(model):
            quantizer.observer_enabled, quantizer.fake_quant_enabled = True, False
        for _ in passes:
            pass
        for quantizer in activation_quantizers(model):
            quantizer.compute_qparams()
        for slot, matrices in slots:
            slot.compute_qparams(matrices)
        QuantPolicy.project_(self, model, 0)  # a policy's own may forget it; then activations stayed in float
        self.project_(model, 0)

    def require_steps(self, steps: int) -> None:
        """Raise UserError if a training of so many steps would end before activations are quantized: the packed model
        quantizes them, whatever was trained."""
        if self.trains and self.activation_start > steps:
            raise UserError(
                f"policy.activation_start: {self.activation_start:,} is after the last of {steps:,} steps, so that "
                "activations would be quantized in the packed model alone; lower it, or train longer."
            )

    def switch_(self, model: nn.Module, bit_map: BitMap) -> None:
        """Make the model that of an allocation, where it can be several; here it has one alone, and stays as it is.

        Args:
            model: which this policy has prepared.
            bit_map: widths of every layer.

        Raises:
            UserError: a layer was not trained in these widths.
        """

    def notes(self) -> dict[str, Any]:
        """What the policy chose by itself, JSON-able, for the run's record; asked after the training."""
        return {}

    def penalty(self, model: nn.Module, step: int) -> Tensor:
        """Extra loss at a step, () float32."""
        return torch.zeros((), device=next(model.parameters()).device)

    def project_(self, model: nn.Module, step: int) -> None:
        """Change the model in place after an optimizer step: compressors, annealing; here the observers' schedule.

        It is called again at the step where a training goes on, and before the model is packed: what it changes has to
        follow from the step and the model, so that the same call a second time changes nothing.
        """
        frozen = self.freeze_step is not None and step >= self.freeze_step
        for quantizer in activation_quantizers(model):
            quantizer.fake_quant_enabled = step >= self.activation_start
            quantizer.observer_enabled = (
                not (quantizer.trained or quantizer.static_range or frozen) and self.trains and model.training
            )


def require_finite(matrices: Iterable[Tensor], layer: str) -> None:
    """Raise UserError if a weight is infinite or no number: quantizers would make some number of it."""
    if not all(matrix.isfinite().all() for matrix in matrices):
        raise UserError(f"{layer}: its weights hold a number that is not finite; train with a lower learning rate.")
