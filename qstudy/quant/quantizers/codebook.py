"""Codebook quantizers of weights: K = 2**bits levels where the weights are, each an int8 number times one scale."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qstudy.quant.quantizers.base import TINY, QuantizedMatrix, WeightQuantizer
from qstudy.quant.quantizers.codebook_kernels import HIGH, look_up, nearest_entries
from qstudy.quant.quantizers.lloyd_max import lloyd_max

CODEBOOK_WIDTHS = (2, 3, 4, 5, 6, 7)
Levels = Literal["lloyd_max", "uniform"]
"""Where a codebook's levels lie."""
CLIPS = 64  # candidates for the last of uniform levels


class CodebookWeights(WeightQuantizer):
    """Lloyd-Max centroids of one weight matrix, each a multiple of its scale that int8 holds; or uniform levels.

    Source: Zhen et al. 2022, arXiv 2206.15408 (S8BQAT).
    """

    table: Tensor
    """(K,) int8, ascending."""
    scale: Tensor
    """(1, 1) float32: the matrix's largest magnitude is 127 times this."""

    def __init__(self, weight: Tensor, bits: int, levels: Levels = "lloyd_max") -> None:
        """Args: the matrix (rows, columns), on whose device the table lies; bits per weight, 2 to 7; which levels."""
        super().__init__()
        self.bits, self.place = bits, PLACES[levels]
        even = torch.linspace(-HIGH, HIGH, 2**bits, device=weight.device)  # until calibrated
        self.register_buffer("table", even.round().to(torch.int8))
        self.register_buffer("scale", torch.full((1, 1), 1 / HIGH, device=weight.device))

    @property
    def levels(self) -> Tensor:
        """The values that a weight can take, (K,) float32, ascending."""
        return self.table.float() * self.scale.flatten()

    def forward(self, weight: Tensor) -> Tensor:
        """Fake-quantize weight (rows, columns): to the nearest centroid, with the whole gradient straight through."""
        by_half = self.levels[nearest_entries(self.table).int()]
        quantized: Tensor = _NearestEntry.apply(weight, self.scale.flatten()[0], by_half)
        return quantized

    @torch.no_grad()
    def quantize(self, weight: Tensor) -> QuantizedMatrix:
        indices = look_up(weight.float().contiguous(), self.scale.flatten()[0], nearest_entries(self.table))
        return QuantizedMatrix(indices, self.scale.clone(), self.table.clone())

    @torch.no_grad()
    def calibrate(self, weight: Tensor) -> None:
        """Place the centroids, and give every one an int8 number of its own."""
        largest = weight.detach().abs().amax().float()
        scale = torch.where(largest > 0, largest, 1) / HIGH  # of zeros any: a tiny one would make the penalty steep
        centroids = self.place(weight.double() / scale.double(), len(self.table)).numpy()
        table = distinct_integers(_with_spares(centroids, len(self.table)), HIGH)
        self.scale.fill_(float(scale))
        self.table.copy_(torch.from_numpy(table))


def uniform_levels(values: Tensor, K: int) -> Tensor:
    """K levels equally far apart, from -clip to clip: of `CLIPS` clips the one with the least squared error.

    Args:
        values: any shape, float64.
        K: 2 or more.

    Returns:
        (K,) float64, ascending.
    """
    values = values.cpu()
    clips = values.abs().amax().clamp_min(TINY) * torch.arange(1, CLIPS + 1, dtype=torch.float64) / CLIPS

    def error(clip: Tensor) -> float:
        width = 2 * clip / (K - 1)
        nearest = ((values + clip) / width).round().clamp(0, K - 1) * width - clip
        return float((nearest - values).square().sum())

    return torch.linspace(-1, 1, K, dtype=torch.float64) * min(clips, key=error)


PLACES: dict[Levels, Callable[[Tensor, int], Tensor]] = {"lloyd_max": lloyd_max, "uniform": uniform_levels}


class _NearestEntry(torch.autograd.Function):
    """To the nearest level; straight through in the backward pass: weights beyond the outermost levels move too."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, by_half: Tensor) -> Tensor:
        return look_up(weight.detach().float().contiguous(), scale, by_half)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None, None


def distinct_integers(wanted: NDArray[np.float64], high: int) -> NDArray[np.int8]:
    """The different integers in [-high, high] nearest to ascending wanted values (K,), in least squares.

    Integers that ascend by one or more are a rank plus a sequence that never falls: an isotonic regression, rounded.
    """
    rank = np.arange(len(wanted))
    falls = _isotonic(wanted - rank).clip(-high, high - rank[-1])
    integers: NDArray[np.int8] = (np.rint(falls) + rank).astype(np.int8)
    return integers


def _isotonic(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest sequence that never falls: at i the greatest over j <= i of the least mean of j..k, k >= i."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first, last = np.indices((len(values), len(values)))
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.where(last >= first, (sums[last + 1] - sums[first]) / (last + 1 - first), np.inf)
    least = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
    result: NDArray[np.float64] = np.where(first <= last, least, -np.inf).max(0)
    return result


def _with_spares(centroids: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Fill up to `count` values, where the matrix has fewer different ones: each new one halves the widest gap."""
    while len(centroids) < count:
        ends = np.concatenate([[-HIGH], centroids, [HIGH]])
        widest = int(np.diff(ends).argmax())
        centroids = np.insert(centroids, widest, (ends[widest] + ends[widest + 1]) / 2)
    return centroids
