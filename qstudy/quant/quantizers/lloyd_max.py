"""Lloyd-Max: the K levels that stand for a set of values with the least squared error."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

ROUNDS = 20_000  # hundreds of levels creep; a round costs some 20 microseconds
TOLERANCE = 1e-9  # of the values' spread: no centroid moved further in the last round
BINS = 4096  # of the histogram that the first guess comes from


def lloyd_max(values: Tensor, K: int) -> Tensor:
    """Alternate nearest-centroid assignment and conditional mean until nothing moves.

    Source: Lloyd 1982, "Least squares quantization in PCM"; Max 1960, "Quantizing for minimum distortion".

    Args:
        values: any shape, float; all count alike.
        K: how many centroids, 1 or more.

    Returns:
        (min(K, distinct values),) float64, ascending, all different.

    Raises:
        ValueError: there is no value, or one that is not finite.
    """
    flat = values.detach().cpu().double().flatten().numpy()
    if not flat.size or not np.isfinite(flat).all():
        raise ValueError("Lloyd-Max needs values, and finite ones.")
    points, counts = np.unique(flat, return_counts=True)
    if len(points) <= K:
        return torch.from_numpy(points)
    return torch.from_numpy(_Sorted(points, counts).converge(K))


class _Sorted:
    """Distinct values in ascending order with prefix sums: the mean of any cell is one division."""

    def __init__(self, points: Floats, counts: NDArray[np.intp]) -> None:
        self.points, self.counts = points, counts
        self.mass = np.concatenate([[0], np.cumsum(counts)])
        self.sums = np.concatenate([[0.0], np.cumsum(points * counts)])

    def converge(self, levels: int) -> Floats:
        """The centroids, from the first guess on."""
        centroids = self._first_guess(levels)
        smallest_move = TOLERANCE * (self.points[-1] - self.points[0])
        for _ in range(ROUNDS):
            moved = self._means(self._cells(centroids))
            change = np.abs(moved - centroids).max()
            centroids = moved
            if change <= smallest_move:
                break
        return centroids

    def _first_guess(self, levels: int) -> Floats:
        """Spread the centroids as many levels want it: their density is the values' to the power 1/3.

        Source: Panter and Dite 1951, "Quantization distortion in pulse-count modulation".
        """
        density, edges = np.histogram(self.points, BINS, weights=self.counts)
        cumulative = np.concatenate([[0.0], np.cumsum(np.cbrt(density))])
        wanted = (np.arange(levels) + 0.5) / levels * cumulative[-1]
        guess: Floats = np.interp(wanted, cumulative, edges)
        return guess

    def _cells(self, centroids: Floats) -> NDArray[np.intp]:
        """Cell k holds points[edges[k]:edges[k + 1]]; never empty: an empty one takes its neighbour's nearest point."""
        levels, last = len(centroids), len(self.points)
        edges = np.empty(levels + 1, np.intp)
        edges[0], edges[-1] = 0, last
        edges[1:-1] = np.searchsorted(self.points, (centroids[1:] + centroids[:-1]) / 2)
        if (np.diff(edges) > 0).all():
            return edges
        places = np.arange(levels + 1)
        edges = np.maximum.accumulate(edges - places) + places  # at least one point to each, from the left
        return np.minimum(edges, last - levels + places)  # and from the right

    def _means(self, edges: NDArray[np.intp]) -> Floats:
        means = np.diff(self.sums[edges]) / np.diff(self.mass[edges])
        inside: Floats = np.clip(means, self.points[edges[:-1]], self.points[edges[1:] - 1])  # prefix sums round
        return inside
