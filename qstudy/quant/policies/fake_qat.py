"""`fake_qat`: quantization-aware training with uniform grids, simulated in float."""

from qstudy.bits import FLOAT, BitPatterns, LayerBits
from qstudy.errors import UserError
from qstudy.quant.fake import FakeArithmetic
from qstudy.quant.grids import (
    ActivationRange,
    FixedActivations,
    UniformActivations,
    UniformWeights,
    WeightRange,
)
from qstudy.quant.layers import Quantizable
from qstudy.quant.policies.base import choice
from qstudy.quant.policies.gridded import GriddedPolicy


class FakeQAT(GriddedPolicy):
    """Weights and activations are snapped to uniform grids in the forward pass; gradients go straight through.

    Source: Jacob et al. 2018, arXiv 1712.05877; learned scales: LSQ, Esser et al. 2020, arXiv 1902.08153.

    YAML:
        policy:
          name: fake_qat
          layers: {"*": {weight: 4, activation: 8}, "joiner.*": {weight: 8}}
          weight_range: learned
    """

    def __init__(
        self,
        layers: BitPatterns,
        weight_range: WeightRange = "learned",
        activation_range: ActivationRange = "ema",
        symmetric: bool = True,
        narrow: bool = True,
        activation_start: int = 0,
        freeze_step: int | None = None,
    ) -> None:
        """
        Args:
            layers: ordered glob patterns over layer names -> widths.
            weight_range: where weight grids end: `max`, `mse` (clipped where the squared error is least), `learned`.
            activation_range: where activation grids end: `ema` (moving average of extremes) or `learned`.
            symmetric: activation grids are symmetric around zero; else they have a zero point.
            narrow: weight grids have 2**bits - 1 levels, symmetric; else all 2**bits.
            activation_start: activations stay in float, only watched, before this step (weights first).
            freeze_step: activation ranges stop moving at this step; None: never.

        Raises:
            UserError: a range that does not exist, or learned asymmetric activations.
        """
        super().__init__(layers, activation_start, freeze_step)
        choice("weight_range", weight_range, ("max", "mse", "learned"))
        choice("activation_range", activation_range, ("ema", "learned"))
        if activation_range == "learned" and not symmetric:
            raise UserError("policy.activation_range: learned grids are symmetric; set symmetric: true, or use ema.")
        self.weight_range = weight_range
        self.activation_range = activation_range
        self.symmetric = symmetric
        self.narrow = narrow

    def arithmetic(self, layer: Quantizable, bits: LayerBits) -> FakeArithmetic:
        matrices = layer.matrices()
        weights = [
            UniformWeights(matrix, bits.weight, bits.granularity, self.weight_range, self.narrow)
            if bits.weight != FLOAT
            else None
            for matrix in matrices
        ]
        grids = layer.shape("").activations if bits.activation != FLOAT else 0
        inputs = UniformActivations(bits.activation, self.symmetric, self.activation_range) if grids else None
        hidden = FixedActivations(bits.activation) if grids > 1 else None
        return FakeArithmetic(weights, inputs, hidden)
