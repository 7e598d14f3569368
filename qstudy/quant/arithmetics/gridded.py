"""An arithmetic that keeps its numbers on grids: one for each weight matrix, one for inputs, one for hidden states."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.quant.arithmetics.base import TrainingArithmetic
from qstudy.quant.arithmetics.cache import WeightCache
from qstudy.quant.grids import ActivationGrid, WeightGrid
from qstudy.quant.serving import IntegerServed, ServedArithmetic, SnappedServed, WeightsOnlyServed


class GriddedArithmetic(TrainingArithmetic):
    """A layer whose weights, inputs and hidden state have grids; what has none stays in float."""

    def __init__(
        self,
        weights: Sequence[WeightGrid | None],
        inputs: ActivationGrid | None = None,
        hidden: ActivationGrid | None = None,
    ) -> None:
        """Args: one grid (or None) per weight matrix; grids of the inputs and of an LSTM's hidden state."""
        super().__init__()
        self.weights = nn.ModuleList(grid if grid is not None else nn.Identity() for grid in weights)
        self.inputs = inputs
        self.hidden = hidden
        self._snapped: WeightCache[Tensor] = WeightCache()
        self._gathering: dict[int, WeightGrid] = {}

    @property
    def packed(self) -> type[ServedArithmetic]:
        """By what is an integer: weights, activations, or both."""
        if not any(isinstance(grid, WeightGrid) for grid in self.weights):
            return SnappedServed
        return WeightsOnlyServed if self.inputs is None else IntegerServed

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        return F.embedding(ids, self._weight(0, weight))

    def calibrate(self, matrices: Sequence[Tensor]) -> None:
        """Fit the weight grids to the trained matrices; those that gather see the products' inputs until `settle`."""
        for index, (grid, matrix) in enumerate(zip(self.weights, matrices, strict=True)):
            if isinstance(grid, WeightGrid):
                grid.calibrate(matrix)
                if grid.gathers:
                    self._gathering[index] = grid

    def settle(self, matrices: Sequence[Tensor]) -> None:
        """After the batches of calibration: let the weight grids that gathered inputs choose their integers."""
        for index, grid in self._gathering.items():
            grid.settle(matrices[index])
        self._gathering.clear()

    def pack(self, matrices: Sequence[Tensor]) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for index, (grid, matrix) in enumerate(zip(self.weights, matrices, strict=True)):
            if isinstance(grid, WeightGrid):
                codes = grid.codes(matrix)
                tensors |= {f"{index}.codes": codes.integers, f"{index}.scale": codes.scale}
                if codes.table is not None:
                    tensors[f"{index}.table"] = codes.table
            else:
                tensors[f"{index}.float"] = matrix.detach()
        grids = [grid.constants() for grid in (self.inputs, self.hidden) if grid is not None]
        if grids:
            tensors["activation"] = torch.stack(grids)
        return tensors

    def _input(self, x: Tensor) -> Tensor:
        snapped = x if self.inputs is None else self.inputs(x)
        if 0 in self._gathering:
            self._gathering[0].gather(snapped)
        return snapped

    def _recurred(self, outputs: Tensor, first: Tensor) -> Tensor:
        """Outputs (B, T, H) of an LSTM, passed through: one step later, from the first hidden state (1, B, H) on, they
        are what its hidden weights were multiplied with."""
        if 1 in self._gathering:
            hidden = torch.cat([first.transpose(0, 1), outputs[:, :-1]], 1)
            self._gathering[1].gather(hidden if self.hidden is None else self.hidden(hidden))
        return outputs

    def _weight(self, index: int, weight: Tensor) -> Tensor:
        """The matrix as its grid has it."""
        grid = self.weights[index]
        return self._snapped.get(index, weight, grid, grid)
