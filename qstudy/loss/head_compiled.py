"""The transducer's head by compiled loops, for float32 on the CPU."""

import numpy as np
import torch
from torch import Tensor

from qstudy.loss import head_kernels
from qstudy.loss.kernels import sum_backward, sum_forward
from qstudy.loss.tiles import Sides, Tiles, Utterances
from qstudy.threads import on_threads


class CompiledTiles(Tiles):
    """Arrays over nodes are by diagonals, as in `kernels`."""

    def __init__(self, sides: Sides, utterances: Utterances) -> None:
        super().__init__(sides, utterances)
        (batch, frames, _), columns = sides.encoded.shape, sides.predicted.shape[1]
        self._peak, self._total = torch.empty(2, batch, frames, columns)
        diagonals = (batch, frames + columns - 1, columns)
        self._logs = torch.empty(2, *diagonals, dtype=torch.float64)
        self._ways = torch.empty(2, *diagonals)  # probability of leaving a node by blank and by label
        targets, self._frames, self._labels = (each.numpy() for each in utterances[:3])
        self._read = (targets, self._labels, utterances.blank, self._peak.numpy(), self._total.numpy())
        self._join = (sides.encoded.numpy(), sides.predicted.numpy())

    def join(self, nodes: Tensor, joined: Tensor) -> Tensor:
        on_threads(head_kernels.join_rows, *self._join, nodes.numpy(), *self.sides[2:], joined.numpy())
        return joined

    def read(self, nodes: Tensor, logits: Tensor) -> None:
        rows = logits.float().contiguous().numpy()
        on_threads(head_kernels.read_rows, rows, nodes.numpy(), *self._read, *self._logs.numpy())

    def finish(self) -> Tensor:
        lengths, logs = (self._frames, self._labels), self._logs.numpy()
        alpha, losses = torch.empty_like(self._logs[0]), torch.empty(len(self._frames), dtype=torch.float64)
        on_threads(sum_forward, *logs, *lengths, alpha.numpy(), losses.numpy())
        on_threads(sum_backward, *logs, *lengths, alpha.numpy(), losses.numpy(), *self._ways.numpy())
        return losses.float()

    def occupancy(self) -> Tensor:
        both, (batch, frames, columns) = self._ways.sum(0), self._peak.shape
        return both.as_strided((batch, frames, columns), (both.stride(0), columns, columns + 1))  # [b, t + u, u]

    def differentiate(self, nodes: Tensor, logits: Tensor, scale: float) -> None:
        how = (*self._read, *self._ways.numpy(), np.float32(scale))
        on_threads(head_kernels.write_rows, logits.numpy(), nodes.numpy(), *how)

    def add_gradients(
        self, nodes: Tensor, hidden: Tensor, gradient: Tensor, of_encoded: Tensor, of_predicted: Tensor
    ) -> None:
        own = (hidden.numpy(), gradient.contiguous().numpy(), of_encoded.numpy(), of_predicted.numpy())
        on_threads(head_kernels.add_gradients, *self._join, nodes.numpy(), *self.sides[2:], *own)
