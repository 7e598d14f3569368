"""`fake_qat`: quantization-aware training with uniform grids, simulated in float."""

from collections.abc import Iterable, Iterator

from torch import nn

from qstudy.bits import FLOAT, BitPatterns, LayerBits
from qstudy.errors import UserError
from qstudy.quant.fake import FakeArithmetic
from qstudy.quant.grids import ActivationRange, FixedActivations, UniformActivations, UniformWeights, WeightRange
from qstudy.quant.layers import Quantizable, quantizable
from qstudy.quant.policies.base import QuantPolicy


class FakeQAT(QuantPolicy):
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
        super().__init__(layers)
        choice("weight_range", weight_range, ("max", "mse", "learned"))
        choice("activation_range", activation_range, ("ema", "learned"))
        if activation_range == "learned" and not symmetric:
            raise UserError("policy.activation_range: learned grids are symmetric; set symmetric: true, or use ema.")
        self.weight_range = weight_range
        self.activation_range = activation_range
        self.symmetric = symmetric
        self.narrow = narrow
        self.activation_start = activation_start
        self.freeze_step = freeze_step

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

    def calibrate(self, model: nn.Module, passes: Iterable[None]) -> None:
        for layer in quantizable(model).values():
            if isinstance(layer.arithmetic, FakeArithmetic):
                layer.arithmetic.calibrate(layer.matrices())
        for grid in _activation_grids(model):
            grid.observing, grid.enabled = True, False
        for _ in passes:
            pass
        self.project_(model, 0)

    def project_(self, model: nn.Module, step: int) -> None:
        frozen = self.freeze_step is not None and step >= self.freeze_step
        for grid in _activation_grids(model):
            grid.enabled = step >= self.activation_start
            grid.observing = grid.range == "ema" and not frozen and self.trains and model.training


def _activation_grids(model: nn.Module) -> Iterator[UniformActivations]:
    return (module for module in model.modules() if isinstance(module, UniformActivations))


def choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise UserError unless the policy's option `field` has one of the values that it may have."""
    if value not in choices:
        raise UserError(f"policy.{field}: {value!r} is not one of {', '.join(choices)}.")
