"""The fit behind SAWB's coefficients: the best clip of six standard distributions, as a line over two moments.

Source: SAWB, Choi et al. 2018, arXiv 1807.06964. The levels are ours (2**bits - 1, zero among them), so the
coefficients differ from the paper's, whose two-bit quantizer has no zero.
"""

from collections.abc import Callable

import numpy as np

POINTS = 200_001  # of a density's table; more do not change the sixth digit of a coefficient
CONCENTRATION = 1.0  # of the von Mises distribution; the paper gives none

Density = tuple[Callable[[np.ndarray], np.ndarray], float]
"""A symmetric density for x >= 0 up to a factor, and where it ends (or is below 1e-13)."""

DENSITIES: dict[str, Density] = {
    "gaussian": (lambda x: np.exp(-x * x / 2), 8.0),
    "uniform": (np.ones_like, 1.0),
    "laplace": (lambda x: np.exp(-x), 32.0),
    "logistic": (lambda x: np.cosh(x / 2) ** -2.0, 34.0),
    "triangular": (lambda x: 1 - x, 1.0),
    "von mises": (lambda x: np.exp(CONCENTRATION * np.cos(x)), np.pi),
}


class Moments:
    """A density's mass, first and second moment up to any x >= 0: enough for the error of every quantizer."""

    def __init__(self, density: Density) -> None:
        function, self.end = density
        self._x = np.linspace(0, self.end, POINTS)
        p = function(self._x)
        self._sums = [self._integral(p * self._x**power) for power in range(3)]
        mass = self._sums[0][-1]
        self._sums = [total / mass for total in self._sums]
        self.mean_magnitude = float(self._sums[1][-1])
        self.root_mean_square = float(self._sums[2][-1]) ** 0.5

    def _integral(self, values: np.ndarray) -> np.ndarray:
        areas = (values[1:] + values[:-1]) / 2 * (self._x[1] - self._x[0])
        return np.concatenate([[0.0], np.cumsum(areas)])

    def error(self, clip: float, bits: int) -> float:
        """Mean squared error of the 2**bits - 1 equal levels that end at -clip and clip."""
        high = 2 ** (bits - 1) - 1
        levels = np.arange(high + 1) * clip / high
        edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [self.end]]).clip(max=self.end)
        m0, m1, m2 = (np.diff(np.interp(edges, self._x, total)) for total in self._sums)
        return float((m2 - 2 * levels * m1 + levels**2 * m0).sum())


def best_clip(moments: Moments, bits: int) -> float:
    """The clip with the least mean squared error, by golden-section search."""
    low, high = 0.0, moments.end
    golden = (5**0.5 - 1) / 2
    while high - low > 1e-9 * moments.end:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if moments.error(left, bits) < moments.error(right, bits):
            high = right
        else:
            low = left
    return (low + high) / 2


def fit(bits: int) -> tuple[float, float]:
    """c1 and c2 of alpha = c1 * sqrt(E[w^2]) - c2 * E[|w|], by least squares over the six distributions.

    Each distribution is one point: its best clip, and its sqrt(E[w^2]), both in units of its E[|w|].
    """
    tables = [Moments(density) for density in DENSITIES.values()]
    ratio = [m.root_mean_square / m.mean_magnitude for m in tables]
    clip = [best_clip(m, bits) / m.mean_magnitude for m in tables]
    slope, offset = np.polyfit(ratio, clip, 1)
    return float(slope), float(-offset)
