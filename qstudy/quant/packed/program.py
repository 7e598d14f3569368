"""Packed linear and LSTM layers as programs: one compiled call for a few rows, or for layers one after the other."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qstudy.jit import address_of
from qstudy.quant.arithmetic import LSTMState
from qstudy.quant.integer.accumulator import QParams, record, recording
from qstudy.quant.packed.loops import affine, affine_rows, lstm_layers, lstm_stack
from qstudy.quant.packed.matrix import ArrangedMatrix

FEW = 64
"""Rows (for an LSTM: times frames) up to which one by one beats unpacking the matrix for a product of all."""


def loops_accept(x: Tensor) -> bool:
    """Whether the compiled loops can run on x; `kernels.usable`, once when the model is loaded, says the rest."""
    return x.is_cpu and x.dtype is torch.float32


_address = cache(address_of)


class Unfit(Exception):
    """No program runs this."""


def packed_as(layer: Any, kind: type) -> Any:
    """What runs a packed layer.

    Raises:
        Unfit: it is not of this very kind.
    """
    arithmetic = getattr(layer, "arithmetic", None)
    if type(arithmetic) is not kind:
        raise Unfit
    return arithmetic


class PackedRows:
    """What one packed linear layer computes with."""

    def __init__(self, matrix: ArrangedMatrix, qparams: QParams, bias: Tensor | None) -> None:
        """Args: the matrix; the inputs' quantizer, at most 8 bits; bias (rows,) float32."""
        self.parts = (matrix, qparams, bias)
        self.matrix = matrix
        plan, alive = matrix.plan(qparams)
        plan += [matrix.columns, matrix.rows, matrix.padded_rows, matrix.padded_columns]
        self.plan = torch.tensor([_address(affine_rows, 5), *plan, 0 if bias is None else bias.data_ptr()])
        self.alive = alive

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies make their own: the plan holds addresses."""
        return PackedRows, self.parts

    def accepts(self, x: Tensor) -> bool:
        """Whether x (..., D) is few enough rows, where the compiled loops can run; they trust that it is that wide."""
        columns = self.matrix.columns
        return loops_accept(x) and x.shape[-1] == columns and x.numel() <= FEW * columns

    def __call__(self, x: Tensor) -> Tensor:
        """Map x (..., D) float32 to (..., H)."""
        x, matrix = x.contiguous(), self.matrix
        rows = x.numel() // matrix.columns
        y = torch.empty(*x.shape[:-1], matrix.rows)
        sums = torch.empty(rows, matrix.padded_rows, dtype=torch.int32) if recording() else None
        affine(self.plan.data_ptr(), x.data_ptr(), y.data_ptr(), rows, 0 if sums is None else sums.data_ptr())
        if sums is not None:
            record(sums[:, : matrix.rows].view(y.shape))
        return y


class PackedLSTM(NamedTuple):
    """What one packed LSTM layer computes with."""

    inputs: ArrangedMatrix
    """(4H, D)."""
    hidden: ArrangedMatrix
    """(4H, H)."""
    qparams: tuple[QParams, QParams]
    """Of the inputs and of the hidden state, at most 8 bits."""
    bias: Tensor
    """(4H,) float32."""


class StackStates(Sequence[LSTMState]):
    """The states of several layers in one tensor; taking it apart for every frame would cost more than using it."""

    def __init__(self, tensor: Tensor) -> None:
        """Args: (2, layers, B, H) float32: hidden, then cell states."""
        self.tensor = tensor

    def __len__(self) -> int:
        return self.tensor.shape[1]

    def __getitem__(self, layer: Any) -> Any:
        h, c = self.tensor[:, range(len(self))[layer], None]
        return h, c

    @staticmethod
    def tensor_of(states: Sequence[LSTMState]) -> Tensor:
        """(2, layers, B, H) float32 of any states."""
        if type(states) is StackStates:
            return states.tensor
        return torch.stack([torch.cat(part) for part in zip(*states, strict=True)]).detach().float()


class LSTMProgram:
    """Packed LSTM layers of one size, for one compiled call."""

    def __init__(self, layers: Sequence[PackedLSTM]) -> None:
        self.layers = list(layers)
        self.input_size, self.hidden_size = layers[0].inputs.columns, layers[0].hidden.columns
        self.padded_rows = layers[0].hidden.padded_rows
        plan = [_address(lstm_stack, 8), len(layers), self.input_size, self.hidden_size, self.padded_rows]
        self.alive: list[Tensor] = []
        for layer in layers:
            for matrix, qparams in zip((layer.inputs, layer.hidden), layer.qparams, strict=True):
                part, alive = matrix.plan(qparams)
                plan += part
                self.alive += alive
            plan += [layer.inputs.padded_columns, layer.hidden.padded_columns, layer.bias.data_ptr()]
        self.plan = torch.tensor(plan)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies make their own: the plan holds addresses."""
        return LSTMProgram, (self.layers,)

    def accepts(self, x: Tensor) -> bool:
        """Whether x (B, T, D) is one utterance or few rows, where the compiled loops can run; they trust its width."""
        batch, frames, width = x.shape
        return (batch == 1 or batch * frames <= FEW) and width == self.input_size and loops_accept(x)

    def __call__(self, x: Tensor, states: Sequence[LSTMState] | None) -> tuple[Tensor, StackStates]:
        """Run all layers over x (B, T, D) float32: outputs (B, T, H) and the states after the last frame.

        Raises:
            RuntimeError: the states are of other sizes, which the loops would not notice.
        """
        x, (batch, frames, _), count = x.contiguous(), x.shape, len(self.layers)
        size = (2, count, batch, self.hidden_size)
        before = torch.zeros(size) if states is None else StackStates.tensor_of(states)
        if before.shape != size:
            raise RuntimeError(f"an LSTM's states are {list(before.shape)}, but must be {list(size)}")
        after, y = torch.empty_like(before), torch.empty(batch, frames, self.hidden_size)
        sums = torch.empty(count, 2, frames, batch, self.padded_rows, dtype=torch.int32) if recording() else None
        places = [each.data_ptr() for each in (self.plan, x, before, after, y)]
        lstm_layers(*places, batch, frames, 0 if sums is None else sums.data_ptr())
        if sums is not None:
            for each in sums.flatten(0, 1):
                record(each[..., : 4 * self.hidden_size])
        return y, StackStates(after)
