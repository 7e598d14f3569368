"""Fake arithmetic: values are snapped to their grids, then computed in float."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.quant.arithmetic import Arithmetic, LSTMState
from qstudy.quant.grids import UniformActivations, WeightGrid
from qstudy.quant.recurrence import quantized_recurrence


class FakeArithmetic(Arithmetic):
    """A layer whose weights, inputs and hidden state are snapped to grids; without a grid they stay in float."""

    def __init__(
        self,
        weights: Sequence[WeightGrid | None],
        inputs: UniformActivations | None = None,
        hidden: UniformActivations | None = None,
    ) -> None:
        """Args: one grid (or None) per weight matrix; grids of the inputs and of an LSTM's hidden state."""
        super().__init__()
        self.weights = nn.ModuleList(grid if grid is not None else nn.Identity() for grid in weights)
        self.inputs = inputs
        self.hidden = hidden
        self._snapped: dict[int, tuple[tuple[int, ...], Tensor]] = {}

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(self._input(x), self._weight(0, weight), bias)

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        return F.embedding(ids, self._weight(0, weight))

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        w_input, w_hidden, b_input, b_hidden = weights
        x, w_input, w_hidden = self._input(x), self._weight(0, w_input), self._weight(1, w_hidden)
        if self.hidden is None or not self.hidden.enabled:
            flat = [w_input, w_hidden, b_input, b_hidden]
            y, h, c = torch._VF.lstm(x, state, flat, True, 1, 0.0, self.training, False, True)
            return y, (h, c)
        gates = F.linear(x.transpose(0, 1), w_input, b_input + b_hidden).float()
        step = float(self.hidden.scale)
        y, h, c = quantized_recurrence(gates.contiguous(), state[0][0], state[1][0], w_hidden, step, self.hidden.high)
        return y.transpose(0, 1), (h.unsqueeze(0), c.unsqueeze(0))

    def calibrate(self, matrices: Sequence[Tensor]) -> None:
        """Fit the weight grids to the trained matrices."""
        for grid, matrix in zip(self.weights, matrices, strict=True):
            if isinstance(grid, WeightGrid):
                grid.calibrate(matrix)

    def pack(self, matrices: Sequence[Tensor]) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for index, (grid, matrix) in enumerate(zip(self.weights, matrices, strict=True)):
            if isinstance(grid, WeightGrid):
                tensors[f"{index}.codes"], tensors[f"{index}.scale"] = grid.codes(matrix)
            else:
                tensors[f"{index}.float"] = matrix.detach()
        grids = [grid.constants() for grid in (self.inputs, self.hidden) if grid is not None]
        if grids:
            tensors["activation"] = torch.stack(grids)
        return tensors

    def _input(self, x: Tensor) -> Tensor:
        return x if self.inputs is None else self.inputs(x)

    def _weight(self, index: int, weight: Tensor) -> Tensor:
        """Snap a matrix; when no gradient is wanted, reuse the last result until the matrix or its grid changes."""
        grid = self.weights[index]
        if torch.is_grad_enabled():
            return grid(weight)
        state = (weight, *grid.parameters(), *grid.buffers())
        version = tuple(number for tensor in state for number in (tensor._version, tensor.data_ptr()))
        cached = self._snapped.get(index)
        if cached is None or cached[0] != version:
            cached = (version, grid(weight))
            self._snapped[index] = cached
        return cached[1]
