"""`float`: nothing is quantized; the baseline, and the control of every fine-tune."""

from qstudy.bits import LayerBits
from qstudy.quant.arithmetic import TrainingArithmetic
from qstudy.quant.layers import Quantizable
from qstudy.quant.policies.base import QuantPolicy


class Float(QuantPolicy):
    """All slots stay empty.

    YAML: `policy: {name: float}`
    """

    def __init__(self) -> None:
        super().__init__()

    def arithmetic(self, layer: Quantizable, bits: LayerBits) -> TrainingArithmetic:
        raise AssertionError("a float layer has nothing to quantize")
