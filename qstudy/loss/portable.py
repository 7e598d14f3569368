"""RNN-T loss in plain torch, for any device and dtype: one vector operation per diagonal of the lattice.

The gradient is analytic, so that of the large tensors only the logits are kept between forward and backward.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from qstudy.loss.kernels import LEAST

INF = float("inf")


def diagonals(values: Tensor) -> Tensor:
    """(B, T, U+1) -> (T+U, B, U+1): entry [t + u, b, u] is [b, t, u]; -inf where there is no such t."""
    batch, frames, columns = values.shape
    time = torch.arange(frames + columns - 1, device=values.device)[:, None] - torch.arange(
        columns, device=values.device
    )
    inside = (time >= 0) & (time < frames)
    picked = values.gather(1, time.clamp(0, frames - 1).expand(batch, -1, -1))
    return picked.where(inside, -INF).transpose(0, 1)


def rectangle(values: Tensor, frames: int) -> Tensor:
    """The inverse of `diagonals`: (T+U, B, U+1) -> (B, T, U+1)."""
    columns = values.shape[2]
    n = torch.arange(frames, device=values.device)[:, None] + torch.arange(columns, device=values.device)
    return values.transpose(0, 1).gather(1, n.expand(values.shape[1], -1, -1))


def shift(values: Tensor, by: int) -> Tensor:
    """Move the last dimension by 1 or -1; -inf comes in."""
    return torch.nn.functional.pad(values, (by, -by), value=-INF)


def sum_forward(log_blank: Tensor, log_label: Tensor) -> Tensor:
    """The log probability of reaching each node; all by diagonals, (T+U, B, U+1)."""
    alpha = torch.full_like(log_blank[0], -INF)
    alpha[:, 0] = 0.0
    rows = [alpha]
    for blank, label in zip(log_blank[:-1], log_label[:-1], strict=True):
        alpha = torch.logaddexp(alpha + blank, shift(alpha + label, 1))
        rows.append(alpha)
    return torch.stack(rows)


def sum_backward(log_blank: Tensor, log_label: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """The log probability of the rest of the utterance, leaving each node by blank and by label; all by diagonals.

    `ends` (T+U, B, U+1) is True at the last node of each utterance, which blank leaves for good.
    """
    beta = torch.full_like(log_blank[0], -INF)
    by_blank, by_label = torch.empty_like(log_blank), torch.empty_like(log_label)
    for n in range(len(log_blank) - 1, -1, -1):
        by_blank[n] = log_blank[n] + beta.masked_fill(ends[n], 0.0)
        by_label[n] = log_label[n] + shift(beta, -1)
        beta = torch.logaddexp(by_blank[n], by_label[n])
    return by_blank, by_label


class PortableLoss(Function):
    """-log P(targets | logits) of every utterance, (B,), in the dtype of the logits."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, frames: Tensor, labels: Tensor, blank: int, clamp: float
    ) -> Tensor:
        """`logits` (B, T, U+1, V) float; `targets` (B, U), `frames` (B,), `labels` (B,) int64; all on one device."""
        longest, columns = logits.shape[1:3]
        t, u = torch.arange(longest, device=logits.device)[:, None], torch.arange(columns, device=logits.device)
        inside = (t < frames[:, None, None]) & (u <= labels[:, None, None])  # (B, T, U+1)
        before_last = u < labels[:, None]  # (B, U+1): another label follows
        next_label = torch.nn.functional.pad(targets, (0, 1)).where(before_last, blank)
        index = next_label[:, None, :, None].expand(-1, longest, -1, -1)  # (B, T, U+1, 1)

        exact = torch.float32 if logits.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        log_probs = logits.log_softmax(3)
        log_blank = diagonals(log_probs[..., blank].to(exact).where(inside, -INF))
        log_label = log_probs.gather(3, index)[..., 0].to(exact)
        log_label = diagonals(log_label.where(inside & before_last[:, None], -INF))
        n = torch.arange(len(log_blank), device=logits.device)[:, None, None]
        ends = (n == (frames - 1 + labels)[:, None]) & (u == labels[:, None])  # (T+U, B, U+1)

        alpha = sum_forward(log_blank, log_label)
        losses = -(alpha + log_blank).where(ends, 0.0).sum((0, 2))
        ctx.save_for_backward(logits, index, log_blank, log_label, ends, alpha, losses)
        ctx.blank, ctx.clamp = blank, clamp
        return losses.to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """`upstream` (B,): the gradient of each loss."""
        logits, index, log_blank, log_label, ends, alpha, losses = ctx.saved_tensors
        reach = alpha + losses[:, None]
        paths = sum_backward(log_blank, log_label, ends)
        by_blank, by_label = (rectangle((reach + path).exp(), logits.shape[1]).to(logits.dtype) for path in paths)
        improbable = by_blank + by_label < float(LEAST)
        by_blank, by_label = (way.masked_fill(improbable, 0.0) for way in (by_blank, by_label))
        used = (by_blank + by_label)[..., None]  # (B, T, U+1, 1): probability of the node
        gradient = logits.softmax(3).mul_(used)
        gradient[..., ctx.blank] -= by_blank
        gradient.scatter_add_(3, index, -by_label[..., None])
        gradient.masked_fill_(used == 0, 0.0)  # the padding may hold anything
        if ctx.clamp > 0:
            gradient.clamp_(-ctx.clamp, ctx.clamp)
        return gradient.mul_(upstream[:, None, None, None]), None, None, None, None, None
