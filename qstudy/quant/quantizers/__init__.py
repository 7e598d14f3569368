"""Quantizers: how a tensor becomes integers, and how their scale is found."""

from qstudy.quant.quantizers.activations import ActivationRange, FixedActivations, UniformActivations
from qstudy.quant.quantizers.base import (
    TINY,
    ActivationQuantizer,
    QuantizedMatrix,
    WeightQuantizer,
    activation_quantizers,
    bounds,
    integer_type,
)
from qstudy.quant.quantizers.weights import UniformWeights, WeightRange

__all__ = [
    "TINY",
    "ActivationQuantizer",
    "ActivationRange",
    "FixedActivations",
    "QuantizedMatrix",
    "UniformActivations",
    "UniformWeights",
    "WeightQuantizer",
    "WeightRange",
    "activation_quantizers",
    "bounds",
    "integer_type",
]
