"""LSTM layers that run one after the other: in one call where they are packed, else layer by layer."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.quant.arithmetic import LSTMState
from qstudy.quant.integer import Grid, record, recording
from qstudy.quant.kernels import usable
from qstudy.quant.serving.loops import lstm_layers
from qstudy.quant.serving.matrix import ArrangedMatrix, limits, unit
from qstudy.quant.serving.rows import FEW


class PackedLSTM(NamedTuple):
    """What one packed LSTM layer computes with."""

    inputs: ArrangedMatrix
    """(4H, D)."""
    hidden: ArrangedMatrix
    """(4H, H)."""
    grids: tuple[Grid, Grid]
    """Of the inputs and of the hidden state, at most 8 bits."""
    bias: Tensor
    """(4H,) float32."""


class LSTMProgram:
    """Packed LSTM layers of one size as plain arrays for one compiled call."""

    def __init__(self, layers: Sequence[PackedLSTM]) -> None:
        self.layers = list(layers)
        self.hidden_size = layers[0].hidden.columns
        self._constants = (
            _stacked(layers, lambda matrix, grid: torch.tensor(matrix.plan())),
            _stacked(layers, ArrangedMatrix.start),
            _stacked(layers, unit),
            torch.stack([layer.bias.detach() for layer in layers]).numpy(),
            _stacked(layers, lambda matrix, grid: limits(grid)),
            max(matrix.padded_columns for layer in layers for matrix in (layer.inputs, layer.hidden)),
        )
        self._rows = self._constants[1].shape[-1]

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies make their own: the arrays hold addresses."""
        return LSTMProgram, (self.layers,)

    def takes(self, x: Tensor) -> bool:
        """Whether x (B, T, D) is few enough rows, where the compiled loops can run."""
        return (len(x) == 1 or x.shape[0] * x.shape[1] <= FEW) and usable(x)

    def __call__(self, x: Tensor, states: Sequence[LSTMState]) -> tuple[Tensor, list[LSTMState]]:
        """Run all layers over x (B, T, D) float32: outputs (B, T, H) and each layer's state after the last frame."""
        batch, frames, _ = x.shape
        count = len(self.layers)
        after = torch.cat([state[part] for part in range(2) for state in states]).detach()  # (2 * layers, B, H)
        y = torch.empty(batch, frames, self.hidden_size)
        kept = frames if recording() else 1
        sums = np.empty((kept, count, 2, batch, self._rows), np.int32)
        moving = after.numpy()
        lstm_layers(*self._constants, x.detach().contiguous().numpy(), moving[:count], moving[count:], y.numpy(), sums)
        if recording():
            self._record(sums)
        parts = after.split(1)
        return y, list(zip(parts[:count], parts[count:], strict=True))

    def _record(self, sums: NDArray[np.int32]) -> None:
        for layer in range(len(self.layers)):
            for side in range(2):
                record(torch.from_numpy(sums[:, layer, side, :, : 4 * self.hidden_size]))


class LSTMStack(nn.ModuleList):
    """LSTM layers, one feeding the next, with a slot for the program of their packed form."""

    program: LSTMProgram | None

    def __init__(self, layers: Sequence[nn.Module], dropout: float = 0.0) -> None:
        """Args: the layers; dropout of each one's output, while training."""
        super().__init__(layers)
        self.dropout = dropout
        self.program = None

    def forward(self, x: Tensor, states: Sequence[LSTMState] | None) -> tuple[Tensor, list[LSTMState]]:
        """Run over x (B, T, D): outputs (B, T, H) and each layer's state after the last frame."""
        if self.program is not None and self.program.takes(x):
            return self.program(x, states or self._start(x))
        after = []
        for index, layer in enumerate(self):
            x, state = layer(x, states[index] if states else None)
            x = F.dropout(x, self.dropout, self.training)
            after.append(state)
        return x, after

    def _start(self, x: Tensor) -> list[LSTMState]:
        assert self.program is not None
        zeros = x.new_zeros(1, len(x), self.program.hidden_size)
        return [(zeros, zeros)] * len(self)


def fuse(model: nn.Module) -> None:
    """Give every stack of packed layers of one size its program."""
    for stack in model.modules():
        if isinstance(stack, LSTMStack):
            programs = [getattr(layer.arithmetic, "program", None) for layer in stack]
            layers = [layer for program in programs if program for layer in program.layers]
            same = len({layer.hidden.columns for layer in layers}) == 1
            stack.program = LSTMProgram(layers) if same and all(programs) else None


def _stacked(layers: Sequence[PackedLSTM], of: Callable[[ArrangedMatrix, Grid], Tensor]) -> Any:
    """Something of every matrix and its grid as one array (layers, 2, .)."""
    return torch.stack(
        [torch.stack([of(layer.inputs, layer.grids[0]), of(layer.hidden, layer.grids[1])]) for layer in layers]
    ).numpy()
