"""`ptq`: post-training quantization, no training: the rival that training has to beat."""

from typing import Annotated, Literal

from annotated_types import Gt, Le
from torch import Tensor

from qstudy.bits import BitPatterns, LayerBits
from qstudy.quant.policies.fake_qat import FakeQAT
from qstudy.quant.quantizers import UniformActivations, UniformWeights
from qstudy.quant.quantizers.gptq import SecondOrderWeights

Percent = Annotated[float, Gt(0), Le(100)]
ROUNDINGS = {"nearest": UniformWeights, "gptq": SecondOrderWeights}


class PTQ(FakeQAT):
    """Round the trained weights to uniform quantizers; calibrate activation ranges on a few batches.

    `gptq` chooses the integers so that the products with calibration's inputs, an LSTM's hidden states among them,
    change least; `nearest` each for itself. The weakest rival is `weight_range: max` with `rounding: nearest`.

    Source: GPTQ, Frantar et al. 2022, arXiv 2210.17323; `kl`: Migacz 2017, "8-bit inference with TensorRT".

    YAML: `policy: {name: ptq, layers: {"*": {weight: 4, activation: 8}}, rounding: gptq, activation_range: kl}`
    """

    trains = False

    def __init__(
        self,
        layers: BitPatterns,
        weight_range: Literal["max", "percentile", "mse"] = "mse",
        activation_range: Literal["max", "percentile", "mse", "kl"] = "mse",
        rounding: Literal["nearest", "gptq"] = "nearest",
        percentile: Percent = 99.99,
        symmetric: bool = True,
        narrow: bool = True,
    ) -> None:
        """
        Args:
            layers: ordered glob patterns over layer names -> widths.
            weight_range: range of the weights: `max`, `percentile`, or `mse` (least squared error).
            activation_range: range of the activations: `max`, `percentile`, `mse`, or `kl` (least divergence of
                the levels' distribution from the values'), over all batches of calibration.
            rounding: weights to the `nearest` level, or by `gptq`.
            percentile: percent of the magnitudes inside, where that is the range.
            symmetric: activation quantizers are symmetric around zero; else they have a zero point.
            narrow: weight quantizers have 2**bits - 1 levels, symmetric; else all 2**bits.

        """
        super().__init__(layers, symmetric=symmetric, narrow=narrow)
        self.weight_range = weight_range
        self.activation_range = activation_range
        self.rounding = rounding
        self.passes_gradients = rounding != "gptq"
        self.percentile = percentile

    def weight_quantizer(self, matrix: Tensor, bits: LayerBits) -> UniformWeights:
        options = (bits.weight, bits.granularity, self.weight_range, self.narrow, bits.group, self.percentile)
        return ROUNDINGS[self.rounding](matrix, *options)

    def activation_quantizer(self, bits: LayerBits) -> UniformActivations:
        return UniformActivations(bits.activation, self.symmetric, self.activation_range, percentile=self.percentile)
