"""The branches of an amortized LSTM layer: ways to compute a frame's gates, full or cheap.

Source: Macoskey, Strimel, Su, Rastrow 2021, arXiv 2108.01553: the cheap branch is factorized, or pruned. Here it starts
as a compressed copy of the full one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qstudy.errors import UserError
from qstudy.quant.arithmetic import TrainingArithmetic
from qstudy.quant.layers import Linear, Rate

Recurrent = Callable[[Tensor, Tensor], Tensor]
"""A branch's part of the inputs (N, K) and the hidden states (N, H) to pre-activations (N, 4H), in torch's order."""


class Branch(nn.Module, ABC):
    """Gates of an LSTM frame from the inputs and the hidden state."""

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """What needs no hidden state, of many frames at once: inputs (..., D) to (..., K)."""

    @abstractmethod
    def recurrent(self) -> Recurrent:
        """The rest of a frame, for many calls in a row: weights are quantized once for all of them."""

    @contextmanager
    def running(self) -> Iterator[Recurrent]:
        """`recurrent`, while quantizers see nothing: one frame says little of a range. Then they see all frames."""
        run = self.recurrent()
        slots = [layer.arithmetic for layer in self.linears() if layer.arithmetic is not None]
        modes = [slot.training for slot in slots]
        for slot in slots:
            slot.eval()
        try:
            yield run
        finally:
            for slot, training in zip(slots, modes, strict=True):
                slot.train(training)
        self.observe()

    def observe(self) -> None:
        """Let quantizers see what came between its layers since `recurrent`."""

    def linears(self) -> list[Linear]:
        """Its layers."""
        return [each for each in self.children() if isinstance(each, Linear)]

    def calibrate(self) -> None:
        """Fit the quantizers of its weights, if there are any, to what these are now."""
        for layer in self.linears():
            if isinstance(layer.arithmetic, TrainingArithmetic):
                layer.arithmetic.calibrate(layer.matrices())

    def kept(self) -> list[Tensor]:
        """The columns (int64) that it reads of the inputs and of the hidden state; none: all of both."""
        return []

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a frame."""
        return sum(each.in_features * each.out_features for each in self.linears())


class FullBranch(Branch):
    """All of the weights: W_x x + b + W_h h."""

    def __init__(self, inputs: int, hidden: int, rate: Rate) -> None:
        """Args: D, H, how often a frame comes."""
        super().__init__()
        self.input = Linear(inputs, 4 * hidden, rate=rate)
        self.hidden = hidden_linear(hidden, 4 * hidden, rate)
        for weight in (self.input.weight, self.hidden.weight):
            nn.init.uniform_(weight, -(hidden**-0.5), hidden**-0.5)  # as nn.LSTM
        with torch.no_grad():
            self.input.bias.zero_()
            self.input.bias[hidden : 2 * hidden] = 1.0  # forget gates start open (Jozefowicz et al. 2015)

    def project(self, x: Tensor) -> Tensor:
        return self.input(x)

    def recurrent(self) -> Recurrent:
        hidden = self.hidden.repeated()
        return lambda projected, h: projected + hidden(h)

    def matrix(self) -> Tensor:
        """[W_x W_h], (4H, D + H)."""
        return torch.cat([self.input.weight, self.hidden.weight], 1).detach()


class CheapBranch(Branch):
    """A branch that begins as what it can hold of the full one."""

    @abstractmethod
    def compress(self, full: FullBranch) -> None:
        """Take over the full branch's weights as far as they fit."""


class LowRankBranch(CheapBranch):
    """Factorized weights: V (U_x x + U_h h) + b."""

    def __init__(self, inputs: int, hidden: int, rank: int, rate: Rate) -> None:
        """Args: D, H, rows of U, how often a frame comes."""
        super().__init__()
        self.input = Linear(inputs, rank, bias=False, rate=rate)
        self.hidden = hidden_linear(hidden, rank, rate)
        self.output = Linear(rank, 4 * hidden, rate=rate)
        self._between: list[Tensor] = []

    def project(self, x: Tensor) -> Tensor:
        return self.input(x)

    def recurrent(self) -> Recurrent:
        hidden, output, self._between = self.hidden.repeated(), self.output.repeated(), []

        def gates(projected: Tensor, h: Tensor) -> Tensor:
            between = projected + hidden(h)
            self._between.append(between.detach())
            return output(between)

        return gates

    def observe(self) -> None:
        if self.output.arithmetic is not None and self._between:
            self.output.arithmetic.observe(torch.cat(self._between))
        self._between = []

    @torch.no_grad()
    def compress(self, full: FullBranch) -> None:
        """The best approximation of this rank (Eckart and Young 1936), its singular values shared by both factors."""
        left, values, right = torch.linalg.svd(full.matrix(), full_matrices=False)
        rank = min(len(values), self.input.out_features)
        root = values[:rank].sqrt()
        for layer in self.linears():
            layer.weight.zero_()  # beyond the full rank there is nothing
        factor = root.unsqueeze(1) * right[:rank]
        self.input.weight[:rank], self.hidden.weight[:rank] = factor.split(
            [self.input.in_features, self.hidden.in_features], 1
        )
        self.output.weight[:, :rank] = left[:, :rank] * root
        self.output.bias.copy_(full.input.bias)


class SparseBranch(CheapBranch):
    """Whole columns pruned: it reads only the inputs and hidden units with the largest weights."""

    kept_inputs: Tensor
    kept_hidden: Tensor

    def __init__(self, inputs: int, hidden: int, keep: float, rate: Rate) -> None:
        """Args: D, H, the share of both that it reads, how often a frame comes."""
        super().__init__()
        read_inputs, read_hidden = max(round(keep * inputs), 1), max(round(keep * hidden), 1)
        self.input = Linear(read_inputs, 4 * hidden, rate=rate)
        self.hidden = hidden_linear(read_hidden, 4 * hidden, rate)
        self.sizes = inputs, hidden
        self.register_buffer("kept_inputs", torch.arange(read_inputs))
        self.register_buffer("kept_hidden", torch.arange(read_hidden))
        self.register_load_state_dict_post_hook(_require_columns)

    def project(self, x: Tensor) -> Tensor:
        return self.input(x[..., self.kept_inputs])

    def recurrent(self) -> Recurrent:
        hidden, kept = self.hidden.repeated(), self.kept_hidden
        return lambda projected, h: projected + hidden(h[:, kept])

    def kept(self) -> list[Tensor]:
        return [self.kept_inputs, self.kept_hidden]

    @torch.no_grad()
    def compress(self, full: FullBranch) -> None:
        """Structured magnitude pruning: the columns of the largest norms stay."""
        pairs = ((self.input, self.kept_inputs, full.input), (self.hidden, self.kept_hidden, full.hidden))
        for own, kept, whole in pairs:
            largest = whole.weight.norm(dim=0).argsort(descending=True, stable=True)[: len(kept)]
            kept.copy_(largest.sort().values)
            own.weight.copy_(whole.weight[:, kept])
        self.input.bias.copy_(full.input.bias)


def _require_columns(branch: Any, _: Any) -> None:
    """Raise UserError if a loaded file would have a branch read what does not exist: compiled loops do not look."""
    for kept, size in zip(branch.kept(), branch.sizes, strict=True):
        if not ((kept >= 0) & (kept < size)).all():
            raise UserError(
                f"a sparse branch keeps columns that are not between 0 and {size - 1}; make the file again."
            )


def hidden_linear(inputs: int, outputs: int, rate: Rate) -> Linear:
    """A product of a hidden state, which lies in (-1, 1), without bias."""
    layer = Linear(inputs, outputs, bias=False, rate=rate)
    layer.bounded = (True,)
    return layer
