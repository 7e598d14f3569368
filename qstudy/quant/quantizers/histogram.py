"""A histogram over the batches of calibration, whatever their range."""

import math

import torch
from torch import Tensor, nn

from qstudy.quant.quantizers.base import finite_extremes

HALF = 2048  # bins on each side of zero


class Histogram(nn.Module):
    """How often each value came, in bins of equal width from -reach to reach; the reach doubles as it must."""

    counts: Tensor
    """(2 * HALF,) float64."""
    ends: Tensor
    """Least and greatest value, (2,) float32; zero lies between."""

    def __init__(self) -> None:
        super().__init__()
        self.reach = 0.0
        self.register_buffer("counts", torch.zeros(2 * HALF, dtype=torch.float64), persistent=False)
        self.register_buffer("ends", torch.zeros(2), persistent=False)

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Count the values of x (any shape).

        Raises:
            Diverged: x holds values that are not finite.
        """
        flat = x.detach().flatten().float()
        if not len(flat):
            return
        now = finite_extremes(flat)
        largest = float(now.abs().amax())
        if not self.ends.any():  # zeros alone so far: they are in the first bin from zero, however wide it is
            self.reach = largest or 1.0
        self.ends.copy_(torch.stack([torch.minimum(self.ends[0], now[0]), torch.maximum(self.ends[1], now[1])]))
        self._widen(largest)
        self.counts += torch.histc(flat.to(self.counts), 2 * HALF, -self.reach, self.reach)

    @property
    def centers(self) -> Tensor:
        """The middle of each bin, (2 * HALF,) float64."""
        width = self.reach / HALF
        return (torch.arange(2 * HALF, dtype=torch.float64, device=self.counts.device) + 0.5) * width - self.reach

    def _widen(self, largest: float) -> None:
        """Merge bins in pairs, from zero outwards, until the reach holds `largest`."""
        times = max(0, math.ceil(math.log2(max(largest, torch.finfo(torch.float32).tiny) / self.reach)))
        if times == 0:
            return
        self.reach *= 2.0**times
        merged = min(2**times, HALF)
        sides = torch.stack([self.counts[:HALF].flip(0), self.counts[HALF:]]).view(2, -1, merged).sum(2)
        sides = torch.nn.functional.pad(sides, (0, HALF - sides.shape[1]))
        self.counts.copy_(torch.cat([sides[0].flip(0), sides[1]]))
