"""Number grids: which levels a tensor may take, and how their step is found."""

from qstudy.quant.grids.activations import ActivationRange, FixedActivations, UniformActivations
from qstudy.quant.grids.base import TINY, ActivationGrid, Codes, WeightGrid, activation_grids, bounds, integer_type
from qstudy.quant.grids.weights import UniformWeights, WeightRange

__all__ = [
    "TINY",
    "ActivationGrid",
    "ActivationRange",
    "Codes",
    "FixedActivations",
    "UniformActivations",
    "UniformWeights",
    "WeightGrid",
    "WeightRange",
    "activation_grids",
    "bounds",
    "integer_type",
]
