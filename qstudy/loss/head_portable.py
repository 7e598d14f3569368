"""The transducer's head in plain torch, for any device and dtype."""

import torch
from torch import Tensor

from qstudy.loss.portable import INF, diagonals, rectangle, sum_backward, sum_forward
from qstudy.loss.tiles import Sides, Tiles, Utterances


class PortableTiles(Tiles):
    """Arrays over nodes are (B, T, U + 1)."""

    def __init__(self, sides: Sides, utterances: Utterances) -> None:
        super().__init__(sides, utterances)
        (batch, frames, _), columns = sides.encoded.shape, sides.predicted.shape[1]
        self._blank = utterances.blank
        device, shape = sides.encoded.device, (batch, frames, columns)
        self._exact = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        self._peak, self._total = sides.encoded.new_empty(2, *shape)
        self._log_blank, self._log_label = torch.full((2, *shape), -INF, dtype=self._exact, device=device)
        self._before_last = torch.arange(columns, device=device) < utterances.labels[:, None]  # (B, U + 1)
        padded = torch.nn.functional.pad(utterances.targets, (0, 1))
        self._next_label = padded.where(self._before_last, utterances.blank)

    def join(self, nodes: Tensor, joined: Tensor) -> Tensor:
        (torch.mul if self.sides.multiplied else torch.add)(*self._pairs(nodes), out=joined)
        return joined.tanh_() if self.sides.bent else joined

    def read(self, nodes: Tensor, logits: Tensor) -> None:
        b, t, u = nodes.unbind(1)
        logits = logits.to(self._peak.dtype)
        peak = logits.amax(1)
        total = (logits - peak[:, None]).exp_().sum(1)
        self._peak[b, t, u], self._total[b, t, u] = peak, total
        log_total = total.to(self._exact).log()
        label = logits.gather(1, self._next_label[b, u, None])[:, 0]
        log_blank, log_label = ((each - peak).to(self._exact) - log_total for each in (logits[:, self._blank], label))
        self._log_blank[b, t, u] = log_blank
        self._log_label[b, t, u] = log_label.where(self._before_last[b, u], -INF)

    def finish(self) -> Tensor:
        _, frames, labels, _ = self.utterances
        log_blank, log_label = diagonals(self._log_blank), diagonals(self._log_label)
        n = torch.arange(len(log_blank), device=log_blank.device)[:, None, None]
        u = torch.arange(log_blank.shape[2], device=log_blank.device)
        ends = (n == (frames - 1 + labels)[:, None]) & (u == labels[:, None])  # (T + U, B, U + 1)
        alpha = sum_forward(log_blank, log_label)
        losses = -(alpha + log_blank).where(ends, 0.0).sum((0, 2))
        reach = alpha + losses[:, None]
        paths = sum_backward(log_blank, log_label, ends)
        ways = (rectangle((reach + path).exp(), self._total.shape[1]) for path in paths)
        self._by_blank, self._by_label = (way.to(self._total.dtype) for way in ways)
        return losses.to(self._total.dtype)

    def occupancy(self) -> Tensor:
        return self._by_blank + self._by_label

    def differentiate(self, nodes: Tensor, logits: Tensor, scale: float) -> None:
        b, t, u = nodes.unbind(1)
        by_blank, by_label = self._by_blank[b, t, u] * scale, self._by_label[b, t, u] * scale
        logits.sub_(self._peak[b, t, u, None]).exp_()
        logits *= ((by_blank + by_label) / self._total[b, t, u])[:, None]
        logits[:, self._blank] -= by_blank
        logits.scatter_add_(1, self._next_label[b, u, None], -by_label[:, None])

    def add_gradients(
        self, nodes: Tensor, hidden: Tensor, gradient: Tensor, of_encoded: Tensor, of_predicted: Tensor
    ) -> None:
        b, t, u = nodes.unbind(1)
        slope = gradient * (1 - hidden.square()) if self.sides.bent else gradient
        left, right = self._pairs(nodes) if self.sides.multiplied else (1.0, 1.0)
        of_encoded.index_put_((b, t), slope * right, accumulate=True)
        of_predicted.index_put_((b, u), slope * left, accumulate=True)

    def _pairs(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Both sides of each node, (N, J) each."""
        b, t, u = nodes.unbind(1)
        return self.sides.encoded[b, t], self.sides.predicted[b, u]
