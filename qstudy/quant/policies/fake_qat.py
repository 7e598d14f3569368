"""`fake_qat`: quantization-aware training with uniform quantizers, simulated in float."""

from typing import Literal

from torch import Tensor

from qstudy.bits import BitPatterns, LayerBits
from qstudy.quant.policies.base import QuantPolicy, Step
from qstudy.quant.quantizers import (
    ActivationRange,
    UniformActivations,
    UniformWeights,
    WeightRange,
)


class FakeQAT(QuantPolicy):
    """Weights and activations are fake-quantized uniformly in the forward pass; gradients go straight through.

    Source: Jacob et al. 2018, arXiv 1712.05877; learned scales: LSQ, Esser et al. 2020, arXiv 1902.08153; learned zero
    points: LSQ+, Bhalgat et al. 2020, arXiv 2004.09576.

    Weights have no moving average: they are at hand, whole, in every step, so that `max` and `mse` need no memory.

    YAML:
        policy:
          name: fake_qat
          layers: {"*": {weight: 4, activation: 8}, "joiner.*": {weight: 3, granularity: group, group: 32}}
          weight_range: learned
    """

    def __init__(
        self,
        layers: BitPatterns,
        weight_range: Literal["max", "mse", "learned"] = "learned",
        activation_range: Literal["max", "ema", "mse", "learned"] = "ema",
        symmetric: bool = True,
        narrow: bool = True,
        activation_start: Step = 0,
        freeze_step: Step | None = None,
    ) -> None:
        """
        Args:
            layers: ordered glob patterns over layer names -> widths.
            weight_range: range of the weights: `max`, `mse` (clipped at that part of the maximum where
                calibration found the least squared error), `learned` (trained from there).
            activation_range: range of the activations: `max` (the extremes of all batches), `ema` (a moving
                average of each batch's), `mse` (least squared error over calibration, then fixed), `learned` (trained
                from there).
            symmetric: activation quantizers are symmetric around zero; else they have a zero point.
            narrow: weight quantizers have 2**bits - 1 levels, symmetric; else all 2**bits.
            activation_start: activations stay in float, only observed, before this step (weights first).
            freeze_step: the ranges `max` and `ema` stop moving at this step; None: never.

        Raises:
            UserError: a range that does not exist, or a step below zero.
        """
        super().__init__(layers, activation_start, freeze_step)
        self.weight_range: WeightRange = weight_range
        self.activation_range: ActivationRange = activation_range
        self.symmetric = symmetric
        self.narrow = narrow

    def weight_quantizer(self, matrix: Tensor, bits: LayerBits) -> UniformWeights:
        return UniformWeights(matrix, bits.weight, bits.granularity, self.weight_range, self.narrow, bits.group)

    def activation_quantizer(self, bits: LayerBits) -> UniformActivations:
        return UniformActivations(bits.activation, self.symmetric, self.activation_range)
