"""What policies over quantizers share: calibration, and the schedule of activation observers."""

from collections.abc import Callable, Iterable
from typing import Annotated

from annotated_types import Ge, Le
from torch import nn

from qstudy.bits import FLOAT, BitPatterns, LayerBits
from qstudy.quant.layers import Quantizable, quantizable, training_slots
from qstudy.quant.policies.base import QuantPolicy
from qstudy.quant.quantizers import ActivationQuantizer, FixedActivations, activation_quantizers

Step = Annotated[int, Ge(0), Le(10**9)]
"""Optimizer steps, counted from 0."""


class QuantizedPolicy(QuantPolicy):
    """A policy whose arithmetics have quantizers: weights first, activations later, then frozen."""

    def __init__(self, layers: BitPatterns, activation_start: Step = 0, freeze_step: Step | None = None) -> None:
        """
        Args:
            layers: ordered glob patterns over layer names -> widths.
            activation_start: activations stay in float, only observed, before this step.
            freeze_step: activation ranges stop moving at this step; None: never.

        Raises:
            UserError: a step below zero.
        """
        super().__init__(layers)
        self.activation_start = activation_start
        self.freeze_step = freeze_step

    def calibrate(self, model: nn.Module, passes: Iterable[None]) -> None:
        layers = quantizable(model)
        slots = [(slot, layers[name].matrices()) for name, slot in training_slots(model).items() if slot]
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
        self.project_(model, 0)

    def project_(self, model: nn.Module, step: int) -> None:
        frozen = self.freeze_step is not None and step >= self.freeze_step
        for quantizer in activation_quantizers(model):
            quantizer.fake_quant_enabled = step >= self.activation_start
            quantizer.observer_enabled = (
                not (quantizer.trained or quantizer.static_range or frozen) and self.trains and model.training
            )


def activation_quantizers_of(
    layer: Quantizable,
    bits: LayerBits,
    make: Callable[[int], ActivationQuantizer],
    make_bounded: Callable[[int], ActivationQuantizer] = FixedActivations,
) -> list[ActivationQuantizer]:
    """One for each activation of a layer at these widths, made for its number of bits; none where they are float.

    Args:
        layer: whose activations.
        bits: its widths.
        make: by default.
        make_bounded: for what is known to lie in [-1, 1].
    """
    if bits.activation == FLOAT:
        return []
    return [(make_bounded if bounded else make)(bits.activation) for bounded in layer.bounded]
