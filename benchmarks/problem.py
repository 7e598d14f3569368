"""The RNN-T loss forward and backward, by us, by each peer, and a reference, over the same random tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
import torchaudio
from torch import Tensor

from qstudy.loss.rnnt import rnnt_loss

SHAPES = ((16, 200, 40, 128), (8, 200, 60, 500))
"""(B, T, U, V)."""


@dataclass
class Problem:
    """A batch whose utterances all have the full length."""

    logits: Tensor
    """(B, T, U + 1, V) float32."""
    targets: Tensor
    """(B, U) int32."""
    frames: Tensor
    """(B,) int32."""
    labels: Tensor
    """(B,) int32."""

    @classmethod
    def random(cls, batch: int, frames: int, labels: int, size: int) -> "Problem":
        """Random logits and labels; the blank is 0."""
        torch.manual_seed(0)
        logits = torch.randn(batch, frames, labels + 1, size).requires_grad_()
        targets = torch.randint(1, size, (batch, labels), dtype=torch.int32)
        lengths = (torch.full((batch,), length, dtype=torch.int32) for length in (frames, labels))
        return cls(logits, targets, *lengths)

    def arguments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As every loss takes them; the gradient is forgotten."""
        self.logits.grad = None
        return self.logits, self.targets, self.frames, self.labels


def ours(problem: Problem) -> None:
    """`qstudy.loss.rnnt_loss`."""
    rnnt_loss(*problem.arguments(), blank=0).backward()


def torchaudio_loss(problem: Problem) -> None:
    """`torchaudio.functional.rnnt_loss`."""
    torchaudio.functional.rnnt_loss(*problem.arguments(), blank=0).backward()


def warprnnt_numba(problem: Problem) -> None:
    """`warprnnt_numba.RNNTLossNumba`."""
    from warprnnt_numba import RNNTLossNumba

    RNNTLossNumba(blank=0, reduction="sum")(*problem.arguments()).sum().backward()


def reference(problem: Problem) -> None:
    """A log softmax over the same tensor, forward and backward."""
    logits = problem.arguments()[0]
    log_probs = logits.log_softmax(-1)
    log_probs.backward(log_probs.detach())


PEERS: dict[str, Callable[[Problem], None]] = {"torchaudio": torchaudio_loss, "warprnnt-numba": warprnnt_numba}
SIDES: dict[str, Callable[[Problem], None]] = {"ours": ours, "reference": reference, **PEERS}


def absent(peer: str) -> str:
    """Why a peer cannot be measured, or an empty string."""
    return "" if find_spec(peer.replace("-", "_")) else "not installed: pip install 'qstudy[bench]'"


def size_text(shape: tuple[int, ...]) -> str:
    """`16 x 200 x 40 x 128`."""
    return " x ".join(map(str, shape))
