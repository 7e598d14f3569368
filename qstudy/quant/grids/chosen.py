"""Grids that stand for the best of several: calibration decides by the squared error."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from qstudy.errors import UserError
from qstudy.quant.grids.base import ActivationGrid, Codes, WeightGrid
from qstudy.quant.grids.pact import some

PREFERENCE = 1.02
"""An earlier, simpler candidate is taken even if its error is so many times a later one's."""


class Choice(nn.Module):
    """Which of several named grids is in use, and the error of each; both live in checkpoints."""

    index: Tensor
    errors: Tensor

    def __init__(self, names: list[str]) -> None:
        """Args: the candidates, the simplest first."""
        super().__init__()
        self.names = names
        self.register_buffer("index", torch.zeros((), dtype=torch.int64))
        self.register_buffer("errors", torch.full((len(names),), torch.nan))

    @property
    def name(self) -> str:
        """The candidate in use.

        Raises:
            UserError: a foreign checkpoint holds no candidate's number.
        """
        if not 0 <= (index := int(self.index)) < len(self.names):
            raise UserError(f"the choice {index} is none of {', '.join(self.names)}; train again.")
        return self.names[index]

    def decide(self, errors: list[Tensor]) -> None:
        """Take the first candidate that is close to the best."""
        self.errors.copy_(torch.stack(errors))
        good = self.errors <= PREFERENCE * self.errors.amin()
        self.index.copy_(good.int().argmax())

    def table(self) -> dict[str, float]:
        """Candidate -> mean squared error relative to the mean square; not a number before calibration."""
        return dict(zip(self.names, self.errors.tolist(), strict=True))


def relative_error(snapped: Tensor, exact: Tensor) -> Tensor:
    """Mean squared error of a snapped tensor relative to the exact one's mean square: () float32."""
    exact, unit = exact.detach(), exact.detach().abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    difference = ((snapped.detach() - exact) / unit).square().mean()
    return difference / (exact / unit).square().mean().clamp_min(torch.finfo(torch.float32).tiny)


class ChosenWeights(WeightGrid):
    """The weight grid among several that moves a matrix least."""

    def __init__(self, candidates: Mapping[str, WeightGrid]) -> None:
        """Args: grids of one width by name, the simplest first."""
        super().__init__()
        self.candidates = nn.ModuleDict(candidates)
        self.choice = Choice(list(candidates))
        self.bits = next(iter(candidates.values())).bits

    @property
    def chosen(self) -> WeightGrid:
        """The grid in use."""
        return cast(WeightGrid, self.candidates[self.choice.name])

    def forward(self, weight: Tensor) -> Tensor:
        snapped: Tensor = self.chosen(weight)
        return snapped

    def codes(self, weight: Tensor) -> Codes:
        return self.chosen.codes(weight)

    @torch.no_grad()
    def calibrate(self, weight: Tensor) -> None:
        """Choose."""
        grids = cast(list[WeightGrid], list(self.candidates.values()))
        for grid in grids:
            grid.calibrate(weight)
        self.choice.decide([relative_error(grid(weight), weight) for grid in grids])


class ChosenActivations(ActivationGrid):
    """The activation grid among several that moves the batches of calibration least."""

    def __init__(self, candidates: Mapping[str, ActivationGrid]) -> None:
        """Args: grids of one width by name, the simplest first."""
        super().__init__()
        self.candidates = nn.ModuleDict(candidates)
        self.choice = Choice(list(candidates))
        first = next(iter(candidates.values()))
        self.bits, self.low, self.high = first.bits, first.low, first.high
        self._seen: list[Tensor] | None = []  # None: chosen

    @property
    def chosen(self) -> ActivationGrid:
        """The grid in use."""
        return cast(ActivationGrid, self.candidates[self.choice.name])

    @property
    def scale(self) -> Tensor:  # type: ignore[override]
        """The chosen grid's step, () float32."""
        return self.chosen.scale

    @property
    def zero_point(self) -> Tensor:  # type: ignore[override]
        """The chosen grid's zero point, () float32."""
        return self.chosen.zero_point

    @property
    def trained(self) -> bool:  # type: ignore[override]
        """Whether gradients move the chosen grid."""
        return self.chosen.trained

    def forward(self, x: Tensor) -> Tensor:
        """Snap x (any shape) to the chosen grid; while calibration decides, show x to all."""
        if self._seen is None or not (self.observing and self.training):
            snapped: Tensor = self.chosen(x)  # it watches by itself, if asked
            return snapped
        self.observe(x)
        return x

    def observe(self, x: Tensor) -> None:
        """Fit every candidate to x, and keep a part of it for `settle`; afterwards, fit the chosen one."""
        if self._seen is None:
            self.chosen.observe(x)
            return
        self._seen.append(some(x))
        for grid in self._grids():
            grid.observe(x)

    @torch.no_grad()
    def settle(self) -> None:
        """Choose on what was seen."""
        if not self._seen:
            return
        seen, self._seen = torch.cat(self._seen), None
        errors = []
        for grid in self._grids():
            grid.settle()
            state, grid.enabled, grid.observing = (grid.enabled, grid.observing), True, False
            errors.append(relative_error(grid(seen), seen))
            grid.enabled, grid.observing = state
        self.choice.decide(errors)

    def _grids(self) -> list[ActivationGrid]:
        return cast(list[ActivationGrid], list(self.candidates.values()))
