"""`ptq`: post-training quantization, no training: the baseline of baselines."""

from typing import Literal

from qstudy.bits import BitPatterns
from qstudy.quant.policies.base import choice
from qstudy.quant.policies.fake_qat import FakeQAT


class PTQ(FakeQAT):
    """Round the trained weights to uniform grids; calibrate activation ranges on a few batches.

    YAML: `policy: {name: ptq, layers: {"*": {weight: 4}}, weight_range: mse}`
    """

    trains = False

    def __init__(
        self,
        layers: BitPatterns,
        weight_range: Literal["max", "mse"] = "mse",
        symmetric: bool = True,
        narrow: bool = True,
    ) -> None:
        """
        Args:
            layers: ordered glob patterns over layer names -> widths.
            weight_range: `max`, or `mse`: clipped where the squared error is least.
            symmetric: activation grids are symmetric around zero; else they have a zero point.
            narrow: weight grids have 2**bits - 1 levels, symmetric; else all 2**bits.

        Raises:
            UserError: a range that does not exist or has to be learned.
        """
        choice("weight_range", weight_range, ("max", "mse"))
        super().__init__(layers, weight_range, "ema", symmetric, narrow)
