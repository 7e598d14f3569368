"""Packed amortized LSTM layers as a program: all frames of a chunk, layer after layer, in one compiled call."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qstudy.model.encoders.amortized_loops import RECORDS, amortized_layers
from qstudy.model.encoders.amortized_lstm import AmortizedLSTM
from qstudy.model.encoders.branches import Branch
from qstudy.quant.arithmetic import LSTMState
from qstudy.quant.integer.accumulator import record, recording
from qstudy.quant.layers import Linear
from qstudy.quant.packed.arithmetics import PackedInteger
from qstudy.quant.packed.program import PackedRows, StackStates, Unfit, loops_accept, packed_as


class AmortizedProgram:
    """The layers of one encoder, for one utterance at a time."""

    def __init__(self, layers: Sequence[AmortizedLSTM]) -> None:
        """Args: layers whose linear layers are all packed as rows.

        Raises:
            Unfit: a product is another.
        """
        self.layers = list(layers)
        self.hidden_size = layers[0].hidden_size
        self.columns = columns = layers[0].arbitrator.in_features
        widest = max(4 * self.hidden_size, *(linear.out_features for each in layers for linear in each.cheap.linears()))
        plan = [len(layers), columns, self.hidden_size, widest]
        for layer in layers:
            plan += [_rows(layer.arbitrator).plan.data_ptr(), *_branch(layer.full), *_branch(layer.cheap)]
        self.plan = torch.tensor(plan)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies make their own: the plan holds addresses."""
        return AmortizedProgram, (self.layers,)

    def accepts(self, x: Tensor) -> bool:
        """Whether x (B, T, D) is one utterance, where the compiled loops can run."""
        return len(x) == 1 and x.shape[-1] == self.columns and loops_accept(x)

    def __call__(
        self, x: Tensor, states: Sequence[LSTMState] | None, forced: bool = False
    ) -> tuple[Tensor, StackStates, Tensor]:
        """Run all layers over x (1, T, D) float32.

        Args:
            x: the inputs.
            states: of each layer, or None at the start.
            forced: the full branch at every frame, and no arbitrator.

        Returns:
            Outputs (1, T, H), the states after the last frame, and which frames took the full branch (layers, T) bool.

        Raises:
            RuntimeError: the states are those of other layers.
        """
        x, frames, count = x.contiguous(), x.shape[1], len(self.layers)
        start = torch.zeros(2, count, 1, self.hidden_size)
        before = start if states is None else StackStates.tensor_of(states)
        if before.shape != start.shape:
            raise RuntimeError(f"states {tuple(before.shape)} do not fit layers of {tuple(start.shape)}")
        after, y = torch.empty_like(before), torch.empty(1, frames, self.hidden_size)
        chosen, sums = torch.empty(count, frames, dtype=torch.int64), self._sums(frames)
        addresses = torch.zeros(count, RECORDS, dtype=torch.int64)
        for layer, place in enumerate(sums):
            addresses[layer, : len(place)] = torch.tensor([each.data_ptr() for each in place])
        places = [each.data_ptr() for each in (self.plan, x, before, after, y)]
        amortized_layers(*places, frames, int(forced), chosen.data_ptr(), addresses.data_ptr())
        full = chosen.bool()
        for layer, place in enumerate(sums):
            self._record(self.layers[layer], place, full[layer], forced)
        return y, StackStates(after), full

    def _sums(self, frames: int) -> list[list[Tensor]]:
        """Room for the accumulators of each layer's products, (frames, padded rows) int32; none if nobody collects."""
        if not recording():
            return []
        return [
            [torch.empty(frames, _rows(each).matrix.padded_rows, dtype=torch.int32) for each in _linears(layer)]
            for layer in self.layers
        ]

    def _record(self, layer: AmortizedLSTM, sums: list[Tensor], full: Tensor, forced: bool) -> None:
        """Hand the accumulators over in the order in which `AmortizedLSTM.chosen` computes them."""
        linears = _linears(layer)
        own = [each[:, : linear.out_features] for each, linear in zip(sums, linears, strict=True)]
        branches = {True: own[1 : 1 + len(layer.full.linears())], False: own[1 + len(layer.full.linears()) :]}
        if not forced:
            record(own[0].unsqueeze(0))
        record(branches[True][0][full])
        record(branches[False][0][~full])
        for t, taken in enumerate(full.tolist()):
            for each in branches[taken][1:]:
                record(each[t : t + 1])


def _linears(layer: AmortizedLSTM) -> list[Linear]:
    """In the order of the plan; the cheap branch is last, so that what it lacks is missing at the end."""
    return [layer.arbitrator, *layer.full.linears(), *layer.cheap.linears()]


def _rows(linear: Linear) -> PackedRows:
    rows = packed_as(linear, PackedInteger).rows
    if not isinstance(rows, PackedRows):
        raise Unfit
    return rows


def _branch(branch: Branch) -> list[int]:
    """Its part of the plan: see `amortized_loops`."""
    linears, kept = branch.linears(), [each.data_ptr() for each in branch.kept()]
    plans = [_rows(each).plan.data_ptr() for each in linears]
    return [*plans, *[0] * (3 - len(plans)), *(kept or [0, 0]), linears[0].out_features]


def amortized_program(layers: Sequence[AmortizedLSTM]) -> AmortizedProgram | None:
    """The program of packed layers; None where a product is not one of packed integers."""
    try:
        return AmortizedProgram(layers)
    except Unfit:
        return None
