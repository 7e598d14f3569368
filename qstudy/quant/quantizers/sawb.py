"""SAWB: a quantizer of weights whose range follows from two moments of the weights, anew at every optimizer step."""

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

PARTS = 2**15  # of the largest magnitude, in which moments are summed: a square fits 32 bits
SMALLEST = 1e-30  # largest magnitude whose levels float32 can hold; scales below `TINY` do not exist anyway


class SawbWeights(WeightQuantizer):
    """2**bits - 1 equal levels that end at alpha = c1 * sqrt(E[w^2]) - c2 * E[|w|].

    alpha is kept between E[|w|] and max|w|: the fitted line leaves that range for weights unlike any of the six
    distributions (all of one magnitude; a few among zeros), where no good clip lies.
    Gradients pass straight through, for clipped weights too: alpha follows the weights, so they may come back.

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
        c1, c2 = COEFFICIENTS[self.bits]
        alpha = torch.maximum(c1 * square.sqrt() - c2 * mean, mean) / PARTS
        return torch.minimum((alpha * unit).float(), largest)

    def forward(self, weight: Tensor) -> Tensor:
        codes = self.quantize(weight)
        return straight_through(weight, codes.integers * codes.scale)

    @torch.no_grad()
    def quantize(self, weight: Tensor) -> QuantizedMatrix:
        scale = (self.clip(weight) / self.high).clamp_min(TINY)
        integers = torch.round(weight / scale).clamp(self.low, self.high)
        return QuantizedMatrix(integers.to(integer_type(self.bits)), scale)
