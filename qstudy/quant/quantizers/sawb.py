"""SAWB: quantizers of weights whose range follows from moments of the weights, anew at every optimizer step."""

import torch
from torch import Tensor

from qstudy.errors import UserError
from qstudy.quant.quantizers.base import TINY, QuantizedMatrix, WeightQuantizer, bounds, integer_type
from qstudy.quant.straight_through import straight_through

COEFFICIENTS = {
    2: (2.53216, 1.61136),
    3: (6.94236, 6.30423),
    4: (11.82276, 11.85817),
    5: (16.92661, 17.80895),
    6: (22.18221, 24.00491),
    7: (27.55215, 30.37206),
    8: (33.02261, 36.87991),
}
"""Bits -> (c1, c2), what `sawb_fit.fit` finds."""

FAMILIES = {
    2: (1.53406, 1.33334, 2.00000, 1.65132, 1.50000, 1.61325),
    3: (2.44687, 1.71428, 3.48640, 2.85333, 2.15433, 2.43417),
    4: (3.10057, 1.86667, 4.81973, 3.87483, 2.49678, 2.80565),
    5: (3.63311, 1.93549, 6.09792, 4.82405, 2.69235, 2.97818),
    6: (4.09850, 1.96825, 7.35866, 5.74787, 2.80923, 3.06111),
    7: (4.52127, 1.98425, 8.61728, 6.66519, 2.88082, 3.10169),
    8: (4.91367, 1.99216, 9.88291, 7.58345, 2.92524, 3.12180),
}
"""Bits -> the best clip of each of the six distributions (`sawb_fit.DENSITIES`) over its E[|w|]."""

PARTS = 2**15  # of the largest magnitude, in which moments are summed: a square fits 32 bits
SMALLEST = 1e-30  # largest magnitude whose levels float32 can hold; scales below `TINY` do not exist anyway


class SawbWeights(WeightQuantizer):
    """2**bits - 1 equal levels that end at alpha = c1 * sqrt(E[w^2]) - c2 * E[|w|].

    alpha is kept between E[|w|] and max|w|: the fitted line leaves that range for weights unlike any of the six
    distributions (all of one magnitude; a few among zeros), where no good clip lies.
    Gradients pass straight through, for clipped weights too: alpha follows the weights, so they may come back.

    One line for all six distributions does well up to 3 bits, and cannot do so above: a von Mises density has nearly
    the two moments of a Gaussian, but ends, so that its best clip is another. Over the least error it costs 17 % there
    at 4 bits, and multiples for a uniform density from 5 bits on; see `FamilyWeights`.

    Source: Choi et al. 2018, arXiv 1807.06964.
    """

    def __init__(self, bits: int, granularity: str) -> None:
        """
        Args:
            bits: 2 to 8.
            granularity: `tensor` (one alpha for the matrix, as in the paper) or `channel` (one per row).

        Raises:
            UserError: no coefficients at this width.
        """
        super().__init__()
        if bits not in COEFFICIENTS:
            raise UserError(f"layers: SAWB weights have 2 to 8 bits, not {bits}; choose another width or quantizer.")
        self.bits = bits
        self.low, self.high = bounds(bits)
        self.per_row = granularity == "channel"

    def alpha(self, root_mean_square: Tensor, mean: Tensor) -> Tensor:
        """The clip that two moments of magnitudes ask for; three tensors of one shape, float64."""
        c1, c2 = COEFFICIENTS[self.bits]
        return c1 * root_mean_square - c2 * mean

    def clip(self, weight: Tensor) -> Tensor:
        """alpha of weight (rows, columns): (rows, 1) or (1, 1) float32."""
        magnitude = weight.detach().float().abs()
        magnitude = magnitude if self.per_row else magnitude.reshape(1, -1)
        largest = magnitude.amax(1, keepdim=True)
        unit = largest.clamp_min(SMALLEST)
        # Integers add up to the same sum in any order: training and packing agree, whatever the number of threads.
        whole = magnitude.mul(PARTS / unit).round_().int()
        mean = whole.sum(1, keepdim=True).double() / whole.shape[1]
        square = whole.square_().sum(1, keepdim=True).double() / whole.shape[1]
        alpha = torch.maximum(self.alpha(square.sqrt(), mean), mean) / PARTS
        return torch.minimum((alpha * unit).float(), largest)

    def forward(self, weight: Tensor) -> Tensor:
        codes = self.quantize(weight)
        return straight_through(weight, codes.integers * codes.scale)

    @torch.no_grad()
    def quantize(self, weight: Tensor) -> QuantizedMatrix:
        scale = (self.clip(weight) / self.high).clamp_min(TINY)
        integers = torch.round(weight / scale).clamp(self.low, self.high)
        return QuantizedMatrix(integers.to(integer_type(self.bits)), scale)


class FamilyWeights(SawbWeights):
    """As SAWB, but alpha = k * E[|w|] with the best k of one of its six distributions: calibration takes the one whose
    clip moves the matrix least. Ours, not the paper's."""

    factor: Tensor
    """k, () float64; the Gaussian's until calibrated."""

    def __init__(self, bits: int, granularity: str) -> None:
        super().__init__(bits, granularity)
        self.register_buffer("factor", torch.tensor(FAMILIES[bits][0], dtype=torch.float64))

    def alpha(self, root_mean_square: Tensor, mean: Tensor) -> Tensor:
        return self.factor * mean

    @torch.no_grad()
    def calibrate(self, weight: Tensor) -> None:
        errors = []
        for factor in FAMILIES[self.bits]:
            self.factor.fill_(factor)
            errors.append(float((self(weight) - weight).double().square().sum()))
        self.factor.fill_(FAMILIES[self.bits][errors.index(min(errors))])
