"""The transducer's head forward and backward, by us, by each peer, and its floor, over the same random tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torchaudio
from torch import Tensor
from torch.nn import functional as F

from qstudy.loss.head import head_loss
from qstudy.loss.rnnt import rnnt_loss
from qstudy.quant.arithmetic import Affine

SHAPES = ((16, 200, 40, 128, 128), (8, 200, 60, 500, 512))
"""(B, T, U, V, J)."""


@dataclass
class HeadProblem:
    """A batch whose utterances all have the full length, and an untrained joiner: every alignment is as likely."""

    sides: tuple[Tensor, Tensor]
    """(B, T, J) and (B, U + 1, J) float32."""
    layer: tuple[Tensor, Tensor]
    """Weight (V, J) and bias (V,) float32."""
    targets: Tensor
    """(B, U) int32."""
    lengths: tuple[Tensor, Tensor]
    """Frames and labels, (B,) int32 each."""

    @classmethod
    def random(cls, batch: int, frames: int, labels: int, size: int, hidden: int) -> "HeadProblem":
        """Random numbers and labels; the blank is 0."""
        torch.manual_seed(0)
        sides = (torch.randn(batch, frames, hidden) / 2, torch.randn(batch, labels + 1, hidden) / 2)
        layer = (torch.randn(size, hidden) * hidden**-0.5, torch.zeros(size))
        for each in (*sides, *layer):
            each.requires_grad_()
        targets = torch.randint(1, size, (batch, labels), dtype=torch.int32)
        lengths = (torch.full((batch,), frames, dtype=torch.int32), torch.full((batch,), labels, dtype=torch.int32))
        return cls(sides, layer, targets, lengths)

    def to(self, device: str) -> "HeadProblem":
        """A copy on another device."""
        sides, layer = (
            tuple(each.detach().to(device).requires_grad_() for each in pair) for pair in (self.sides, self.layer)
        )
        return HeadProblem(sides, layer, self.targets.to(device), tuple(each.to(device) for each in self.lengths))

    def labels(self) -> tuple[Tensor, Tensor, Tensor]:
        """As every loss takes them; the gradients are forgotten."""
        for each in (*self.sides, *self.layer):
            each.grad = None
        return self.targets, *self.lengths

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor]:
        """What the output layer could get from all nodes (B T (U + 1), J), and gradients of logits (B T (U + 1), V)."""
        weight, (encoded, predicted) = self.layer[0].detach(), self.sides
        rows = len(encoded) * encoded.shape[1] * predicted.shape[1]
        return weight.new_ones(rows, weight.shape[1]), weight.new_ones(rows, len(weight))

    def logits(self) -> Tensor:
        """Of all nodes (B, T, U + 1, V)."""
        encoded, predicted = self.sides
        return F.linear(torch.tanh(encoded.unsqueeze(2) + predicted.unsqueeze(1)), *self.layer)


def ours(problem: HeadProblem) -> None:
    """`qstudy.loss.head.head_loss`."""
    head_loss(*problem.sides, False, Affine(*problem.layer), *problem.labels(), blank=0).backward()


def whole_logits(problem: HeadProblem) -> None:
    """The joiner, then `qstudy.loss.rnnt_loss`: the plain twin."""
    rnnt_loss(problem.logits(), *problem.labels(), blank=0).backward()


def torchaudio_loss(problem: HeadProblem) -> None:
    """The joiner, then `torchaudio.functional.rnnt_loss`."""
    torchaudio.functional.rnnt_loss(problem.logits(), *problem.labels(), blank=0).backward()


def products(problem: HeadProblem) -> None:
    """The output layer's three products alone, of all nodes, over rows that are there (from the first call on).

    No floor: ours leaves out the gradient of nodes that hardly any alignment passes through.
    """
    weight, (hidden, gradient) = problem.layer[0].detach(), problem.rows
    for left, right in ((hidden, weight.t()), (gradient, weight), (gradient.t(), hidden)):
        torch.mm(left, right)


PEERS: dict[str, Callable[[HeadProblem], None]] = {"whole logits": whole_logits, "torchaudio": torchaudio_loss}
SIDES: dict[str, Callable[[HeadProblem], None]] = {"ours": ours, "products": products, **PEERS}
