"""`native_int`: quantization-aware training in the device's own integers."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from qstudy.bits import FLOAT, BitPatterns, LayerBits
from qstudy.quant.arithmetics.by_row import ByRowArithmetic
from qstudy.quant.arithmetics.native import Gradient, NativeArithmetic
from qstudy.quant.policies.base import NO_CODEBOOK, NO_GROUPS, QuantPolicy, Step
from qstudy.quant.quantizers import ActivationQuantizer, UniformActivations, UniformWeights, WeightQuantizer


class NativeInt(QuantPolicy):
    """Weights and activations are cast to integers and multiplied in integers, in training as on the device.

    Weights: symmetric, scale = max|W| / (2**(bits - 1) - 1) per output channel (or tensor), without gradient.
    Activations: symmetric, their end the moving average of each batch's largest magnitude (the default, ours), or the
    largest magnitude of the row at hand (`activation_range: row`, as in the patent, which takes it over an axis of the
    tensor), or chosen in calibration, or trained, or left in float; the hidden state of an LSTM lies in (-1, 1) and is
    quantized at every frame. The packed model computes the very same accumulators, whole or streaming; behind a layer
    whose activations are in float, which two implementations multiply, from inputs that may differ in their last bits.

    A row is a frame's features: the one axis that gives a stream the scales of the whole. It fits each frame, and needs
    neither calibration nor freezing. It costs the device a pass over each input for its largest magnitude, a division,
    and a product per output, which the simulator does not price; packed LSTMs run frame by frame without their compiled
    program. Products of two activations (attention) keep the moving average: there one operand's rows go over
    frames; so do layers whose weights are in float.

    Source: Ding et al. 2022, arXiv 2203.15952; patent US20230298569A1.

    YAML:
        policy:
          name: native_int
          layers: {"*": {weight: 4, activation: 8}, "joiner.*": {weight: 8, activation: 8}}
          gradient: bfloat16

    W8A8: `{weight: 8, activation: 8}`; W4A4: `{weight: 4, activation: 4}`; W4A-float: `{weight: 4}`.
    """

    refuses = (NO_CODEBOOK, NO_GROUPS)  # an integer product cannot be rescaled after its sum

    def __init__(
        self,
        layers: BitPatterns,
        activation_start: Step = 0,
        freeze_step: Step | None = None,
        gradient: Gradient = "float32",
        weight_range: Literal["max", "mse"] = "max",
        activation_range: Literal["ema", "row", "mse", "learned"] = "ema",
    ) -> None:
        """
        Args:
            layers: ordered glob patterns over layer names -> widths.
            activation_start: activations stay in float, only observed, before this step (weights first).
            freeze_step: ranges of `ema` stop moving at this step; None: never.
            gradient: type in which the backward pass multiplies: `float32`, or `bfloat16` (faster, less precise) where
                the device has it.
            weight_range: range of the weights: `max` of the row, the paper's; or `mse`, the share of it at which
                the baseline's squared error is least. Below 4 bits `max` leaves nearly all weights in the middle level.
            activation_range: range of the activations: `ema`, a moving average over the batches of training, fixed on
                the device; `row`, the largest magnitude of each row as it comes, the patent's; `mse`, the end at which
                calibration's squared error is least; or `learned`, trained from there on (LSQ). Where few large values
                stand far out, as behind a SiLU, 4 bits want one of the last two: the others leave the rest no levels.

        Raises:
            UserError: a type or range that does not exist.
        """
        super().__init__(layers, activation_start, freeze_step)
        self.weight_range: Literal["max", "mse"] = weight_range
        self.activation_range: Literal["ema", "row", "mse", "learned"] = activation_range
        self.gradient = gradient

    def weight_quantizer(self, matrix: Tensor, bits: LayerBits) -> WeightQuantizer:
        return UniformWeights(matrix, bits.weight, bits.granularity, self.weight_range)

    def activation_quantizer(self, bits: LayerBits) -> ActivationQuantizer:
        if self._by_row(bits):
            return self.bounded_quantizer(bits)
        found = self.activation_range
        return UniformActivations(bits.activation, range="ema" if found == "row" else found)

    def assemble(
        self, bits: LayerBits, weights: Sequence[WeightQuantizer | None], *activations: ActivationQuantizer
    ) -> NativeArithmetic:
        made = ByRowArithmetic if self._by_row(bits) and activations else NativeArithmetic
        return made(weights, *activations, gradient=self.gradient)

    def _by_row(self, bits: LayerBits) -> bool:
        return self.activation_range == "row" and bits.weight != FLOAT  # products of activations have no weights
