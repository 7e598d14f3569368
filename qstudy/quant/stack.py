"""LSTM layers that run one after the other."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.quant.arithmetic import LSTMState


class StackProgram(Protocol):
    """All layers of a stack in one call."""

    def accepts(self, x: Tensor) -> bool:
        """Whether it can run x (B, T, D)."""

    def __call__(self, x: Tensor, states: Sequence[LSTMState] | None) -> tuple[Tensor, Sequence[LSTMState]]:
        """What `LSTMStack.forward` gives."""


class LSTMStack(nn.ModuleList):
    """LSTM layers, one feeding the next, with a slot for a program that runs all of them: a packed model fills it."""

    program: StackProgram | None

    def __init__(self, layers: Sequence[nn.Module], dropout: float = 0.0) -> None:
        """Args: the layers; dropout of each one's output, while training."""
        super().__init__(layers)
        self.dropout = dropout
        self.program = None

    def forward(self, x: Tensor, states: Sequence[LSTMState] | None) -> tuple[Tensor, Sequence[LSTMState]]:
        """Run over x (B, T, D): outputs (B, T, H) and each layer's state after the last frame."""
        if self.program is not None and self.program.accepts(x):
            return self.program(x, states)
        after = []
        for index, layer in enumerate(self):
            x, state = layer(x, states[index] if states else None)
            x = F.dropout(x, self.dropout, self.training)
            after.append(state)
        return x, after
