"""`accelerator_aware`: training whose forward pass computes as a fixed-point accelerator does."""

from collections.abc import Iterable, Sequence
from typing import Literal

from torch import Tensor

from qstudy.bits import WITHOUT_PRODUCTS, BitMap, BitPatterns, LayerBits, LayerShape
from qstudy.errors import UserError
from qstudy.fields import dotted
from qstudy.quant.arithmetics.fixed_point import FixedPointArithmetic
from qstudy.quant.fixed_point.lstm import hidden_scale
from qstudy.quant.fixed_point.operators import FixedPoint
from qstudy.quant.policies.base import NO_CODEBOOK, NO_GROUPS, QuantPolicy, Step
from qstudy.quant.quantizers import ActivationQuantizer, FixedActivations, UniformWeights, WeightQuantizer


class AcceleratorAware(QuantPolicy):
    """The accelerator's operators in the forward pass of training, so that none of them has to run on the CPU.

    int8 products with int32 accumulators; requantization by multiplier and shift, with saturation; LSTM cells in 16
    bits, their sigmoids and tanhs by table or straight segments, their products in fixed point; softmax, layer
    normalization and the joiner's tanh in 16 bits likewise, and 16 bits are what a linear layer or a convolution hands
    over. Backward: gradients of the float operators at the quantized values, straight through.

    What no layer computes stays in float, between numbers of 16 bits: residual sums, gates and SiLU of a Conformer, the
    sum of the joiner's sides, the tanh of a stateless predictor. So do the cells of an amortized encoder; where the
    accelerator has no float mode they run on the CPU, and their hand-overs are priced.

    Source: Shakiah et al. 2022, arXiv 2305.07778. Not public there, and therefore our assumptions: the formats (like
    those of common int8 LSTM kernels), the table's size, activations on symmetric quantizers.

    YAML:
        policy:
          name: accelerator_aware
          layers: {"*": {weight: 8, activation: 8}}
          rounding: half_away
          nonlinearity: table

    Formats that hurt, to study what training wins back: `{rounding: truncate, entries: 16, cell_bits: 8,
    cell_fraction: 4}`.
    """

    placement = "accelerator"
    refuses = (NO_CODEBOOK, NO_GROUPS)

    def __init__(
        self,
        layers: BitPatterns,
        rounding: str = "half_away",
        nonlinearity: str = "table",
        entries: int = 512,
        gate_fraction: int = 11,
        cell_fraction: int = 11,
        norm_fraction: int = 10,
        cell_bits: int = 16,
        linear_fraction: int | None = 10,
        weight_range: Literal["max", "mse", "learned"] = "learned",
        activation_start: Step = 0,
        freeze_step: Step | None = None,
    ) -> None:
        """
        Args:
            layers: ordered glob patterns over layer names -> widths: weights of 2 to 8 bits, activations of 2 to 8.
            rounding: of shifts to the right, `half_away` or `truncate`.
            nonlinearity: `table` (entries with linear interpolation) or `linear` (seven segments, Amin et al. 1997).
            entries: of a table, a power of two.
            gate_fraction: fractional bits of a gate before its non-linearity (11: [-16, 16)).
            cell_fraction: fractional bits of the cell state (11: [-16, 16); of 8 bits 4: [-8, 8)).
            norm_fraction: fractional bits of what a layer normalization takes (10: [-32, 32)).
            cell_bits: of the cell state, 16 or 8.
            linear_fraction: fractional bits of what a linear layer hands over (10: [-32, 32)); None: it hands over
                floats, and the joiner's tanh is in float.
            weight_range: range of the weights: `max`, `mse` or `learned`.
            activation_start: activations stay in float, only observed, before this step.
            freeze_step: activation ranges stop moving at this step; None: never.

        Raises:
            UserError: an option that does not exist.
        """
        super().__init__(layers, activation_start, freeze_step)
        self.weight_range = weight_range
        try:
            self.spec = FixedPoint(
                rounding,
                nonlinearity,
                entries,
                gate_fraction,
                cell_fraction,
                norm_fraction,
                cell_bits,
                linear_fraction,
            )
        except UserError as error:  # it knows its fields' names, not its own
            raise UserError(dotted("policy", str(error))) from error

    def widths(self, shape: LayerShape, bits: LayerBits) -> LayerBits:
        """Where activations are quantized, softmax and normalization are the accelerator's own, in 16 bits within."""
        if shape.kind in WITHOUT_PRODUCTS:
            return LayerBits(activation=bits.activation, placement=bits.placement)
        return super().widths(shape, bits)

    def bit_map(self, shapes: Iterable[LayerShape]) -> BitMap:
        """
        Raises:
            UserError: a quantized layer has widths that the accelerator's multiplier does not take.
        """
        listed = list(shapes)
        bit_map = super().bit_map(listed)
        for shape in listed:
            bits = bit_map.get(shape.name)
            wide = (
                (shape.matrices and bits.weight > 8) or (shape.activations and bits.activation > 8) if bits else False
            )
            if bits and bits.quantized and wide:
                raise UserError(f"layers: {shape.name}: {self.name} needs weights and activations of 2 to 8 bits.")
        return bit_map

    def weight_quantizer(self, matrix: Tensor, bits: LayerBits) -> WeightQuantizer:
        return UniformWeights(matrix, bits.weight, bits.granularity, self.weight_range)

    def bounded_quantizer(self, bits: LayerBits) -> ActivationQuantizer:
        """Hidden states and probabilities are fractions of a power of two: Q0.7 at 8 bits."""
        width = bits.activation
        return FixedActivations(width, (2 ** (width - 1) - 1) * hidden_scale(width))

    def assemble(
        self, bits: LayerBits, weights: Sequence[WeightQuantizer | None], *activations: ActivationQuantizer
    ) -> FixedPointArithmetic:
        return FixedPointArithmetic(weights, *activations, spec=self.spec)
