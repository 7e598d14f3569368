"""RNN-T loss on the CPU: numba loops over float32 logits that read them once forward, and once more for the gradient.

Arrays of the functions below: `logits` (B, T, U+1, V) float32; `targets` (B, U), `frames` (B,), `labels` (B,) int64.
A node (t, u) stands for "t frames and u labels are done". Arrays over nodes are float32 (B, T, U+1), or float64 by
diagonals, (B, T+U, U+1) at [b, t + u, u]: a node needs only nodes of the diagonal before, so that a diagonal is one
vector loop. They are float64 because sums of a thousand logarithms in float32 lose the digits that the gradient needs.
Every kernel takes its share of the work from the last two arguments, see `threads.on_threads`.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from qstudy.jit import compiled
from qstudy.threads import on_threads

LOG2_E, LN2 = 1 / math.log(2), math.log(2)
ROUND32, ROUND64 = np.float32(1.5 * 2**23), 1.5 * 2**52  # x + ROUND has the nearest integer to x in its low bits
LOWEST32, LOWEST64 = np.float32(-87.0), -700.0  # exp of less is not a normal number
LOG2_E32 = np.float32(LOG2_E)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)  # ln 2 in two parts: n * HIGH is exact
ONE32, ONE64 = np.int32(0x3F800000), np.int64(0x3FF0000000000000)  # the bits of 1.0
POSITIVE = np.int32(0x7FFFFFFF)
LEAST = np.float32(1e-30)
"""Probability of a node below which its gradient is zero: much of it would be subnormal numbers, each of which costs
some processors a hundred cycles, here and in every product that the gradient goes through."""


@compiled({"contract"})
def exponential(x: np.float32) -> np.float32:
    """exp(x) for x <= 0 to 2 units in the last place, without branch or call, so that loops over it vectorize.

    Range reduction and polynomial: Cephes' expf (Moshier 1989).
    """
    inside = LOWEST32 if x < LOWEST32 else x  # NaN stays
    shifted = inside * LOG2_E32 + ROUND32
    n = shifted - ROUND32
    r = inside - n * LN2_HIGH - n * LN2_LOW
    p = np.float32(1.9875691500e-4) * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1.0)
    power = np.int32((np.float32(shifted).view(np.int32) << np.int32(23)) + ONE32).view(np.float32)  # 2**n
    return np.float32(0.0) if x < LOWEST32 else np.float32(p * power)


@compiled({"contract"})
def exponential64(x: float) -> float:
    """exp(x) for x <= 0 to a relative 1e-14, in the manner of `exponential`: Taylor's polynomial of degree 12."""
    inside = LOWEST64 if x < LOWEST64 else x
    shifted = inside * LOG2_E + ROUND64
    r = inside - (shifted - ROUND64) * LN2
    p = r / 479001600 + 1 / 39916800
    p = p * r + 1 / 3628800
    p = p * r + 1 / 362880
    p = p * r + 1 / 40320
    p = p * r + 1 / 5040
    p = p * r + 1 / 720
    p = p * r + 1 / 120
    p = p * r + 1 / 24
    p = p * r + 1 / 6
    p = p * r + 1 / 2
    p = p * r * r + r + 1
    power = np.int64((np.float64(shifted).view(np.int64) << np.int64(52)) + ONE64).view(np.float64)
    return 0.0 if x < LOWEST64 else p * power


@compiled({"contract"})
def add_logs(a: float, b: float) -> float:
    """log(exp(a) + exp(b)) to 1e-12, with -inf for log 0; NaN if either is.

    log(1 + y) = 2 artanh(s), s = y / (2 + y) <= 1/3, by its power series.
    """
    high, low = (a, b) if a > b else (b, a)
    y = exponential64(-math.inf if low == -math.inf else low - high)
    s = y / (2 + y)
    q = s * s
    p = q / 21 + 1 / 19
    p = p * q + 1 / 17
    p = p * q + 1 / 15
    p = p * q + 1 / 13
    p = p * q + 1 / 11
    p = p * q + 1 / 9
    p = p * q + 1 / 7
    p = p * q + 1 / 5
    p = p * q + 1 / 3
    return high + 2 * (s + s * q * p)


@compiled()
def ordered(bits: np.int32) -> np.int32:
    """The bits of a float32 as an integer of the same order, and back: integer maxima vectorize and keep NaN."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & POSITIVE))


@compiled()
def share(count: int, thread: int, threads: int) -> tuple[int, int]:
    """The part of `range(count)`, as start and stop, that `thread` of `threads` does."""
    return count * thread // threads, count * (thread + 1) // threads


@compiled({"reassoc", "contract"})
def normalize(logits: np.ndarray, b: int, t: int, u: int) -> tuple[np.float32, np.float32]:
    """The maximum over V at one node, and the sum of exp(x - maximum); NaN if any is, or all are -inf."""
    highest = np.int32(-POSITIVE)
    for v in range(logits.shape[3]):
        highest = max(highest, ordered(np.float32(logits[b, t, u, v]).view(np.int32)))
    peak = np.int32(ordered(highest)).view(np.float32)
    total = np.float32(0.0)
    for v in range(logits.shape[3]):
        total += exponential(logits[b, t, u, v] - peak)
    return peak, total


@compiled()
def read_logits(
    logits: np.ndarray,
    targets: np.ndarray,
    frames: np.ndarray,
    labels: np.ndarray,
    blank: int,
    peak: np.ndarray,
    total: np.ndarray,
    log_blank: np.ndarray,
    log_label: np.ndarray,
    thread: int,
    threads: int,
) -> None:
    """Write `peak` and `total` of the softmax at each node, and the log probabilities of blank and the next label."""
    for b in range(frames.size):
        start, stop = share(frames[b], thread, threads)
        for t in range(start, stop):
            for u in range(labels[b] + 1):
                highest, total_here = normalize(logits, b, t, u)
                peak[b, t, u], total[b, t, u] = highest, total_here
                log_total = math.log(np.float64(total_here))
                log_blank[b, t + u, u] = np.float64(logits[b, t, u, blank] - highest) - log_total
                log_label[b, t + u, u] = -math.inf
                if u < labels[b]:
                    log_label[b, t + u, u] = np.float64(logits[b, t, u, targets[b, u]] - highest) - log_total


@compiled()
def sum_forward(
    log_blank: np.ndarray,
    log_label: np.ndarray,
    frames: np.ndarray,
    labels: np.ndarray,
    alpha: np.ndarray,
    losses: np.ndarray,
    thread: int,
    threads: int,
) -> None:
    """Write `alpha`, the log probability of reaching each node, and `losses` (B,), minus that of the utterance."""
    for b in range(thread, frames.size, threads):
        last = frames[b] - 1 + labels[b]
        alpha[b, 0, 0] = 0.0
        for n in range(1, last + 1):
            low, high = max(0, n - frames[b] + 1), min(n, labels[b])
            if low == 0:  # no label yet: all frames ended with blank
                alpha[b, n, 0] = alpha[b, n - 1, 0] + log_blank[b, n - 1, 0]
            if high == n:  # still in the first frame: labels alone
                alpha[b, n, n] = alpha[b, n - 1, n - 1] + log_label[b, n - 1, n - 1]
            for u in range(np.uintp(max(1, low)), np.uintp(min(n - 1, high) + 1)):  # unsigned: no wrapping to check
                before = u - np.uintp(1)
                by_blank = alpha[b, n - 1, u] + log_blank[b, n - 1, u]
                by_label = alpha[b, n - 1, before] + log_label[b, n - 1, before]
                alpha[b, n, u] = add_logs(by_blank, by_label)
        losses[b] = -(alpha[b, last, labels[b]] + log_blank[b, last, labels[b]])


@compiled()
def sum_backward(
    log_blank: np.ndarray,
    log_label: np.ndarray,
    frames: np.ndarray,
    labels: np.ndarray,
    alpha: np.ndarray,
    losses: np.ndarray,
    by_blank: np.ndarray,
    by_label: np.ndarray,
    thread: int,
    threads: int,
) -> None:
    """Write the probabilities that an alignment leaves each node `by_blank` and `by_label` (by diagonals, float32)."""
    for b in range(thread, frames.size, threads):
        beta = np.full(labels[b] + 2, -math.inf)  # log probability of the rest, of the diagonal after n, then of n
        beta[labels[b]] = 0.0  # the end, after the last label and frame
        for n in range(frames[b] - 1 + labels[b], -1, -1):
            for u in range(np.uintp(max(0, n - frames[b] + 1)), np.uintp(min(n, labels[b]) + 1)):
                blank_path = log_blank[b, n, u] + beta[u]
                label_path = log_label[b, n, u] + beta[u + np.uintp(1)]
                reach = alpha[b, n, u] + losses[b]
                by_blank[b, n, u] = exponential64(reach + blank_path)
                by_label[b, n, u] = exponential64(reach + label_path)
                beta[u] = add_logs(blank_path, label_path)


@compiled()
def clear_padding(frames: np.ndarray, labels: np.ndarray, gradient: np.ndarray, thread: int, threads: int) -> None:
    """Write zeros to `gradient` where an utterance is shorter than the tensor."""
    for b in range(frames.size):
        start, stop = share(gradient.shape[1], thread, threads)
        for t in range(start, stop):
            inside = labels[b] + 1 if t < frames[b] else 0
            for u in range(inside, gradient.shape[2]):
                for v in range(gradient.shape[3]):
                    gradient[b, t, u, v] = 0.0


@compiled({"contract"})
def write_gradient(
    logits: np.ndarray,
    targets: np.ndarray,
    frames: np.ndarray,
    labels: np.ndarray,
    blank: int,
    peak: np.ndarray,
    total: np.ndarray,
    by_blank: np.ndarray,
    by_label: np.ndarray,
    clamp: np.float32,
    upstream: np.ndarray,
    gradient: np.ndarray,
    thread: int,
    threads: int,
) -> None:
    """Write `gradient`, like `logits`: softmax x probability of the node, less each way out; zero in the padding and
    where hardly an alignment passes."""
    for b in range(frames.size):
        bound = clamp * abs(upstream[b])
        start, stop = share(frames[b], thread, threads)
        for t in range(start, stop):
            for u in range(labels[b] + 1):
                if by_blank[b, t + u, u] + by_label[b, t + u, u] < LEAST:
                    gradient[b, t, u] = 0
                    continue
                blank_share = by_blank[b, t + u, u] * upstream[b]
                label_share = by_label[b, t + u, u] * upstream[b]
                highest, weight = peak[b, t, u], (blank_share + label_share) / total[b, t, u]
                for v in range(logits.shape[3]):
                    gradient[b, t, u, v] = exponential(logits[b, t, u, v] - highest) * weight
                gradient[b, t, u, blank] -= blank_share
                if u < labels[b]:
                    gradient[b, t, u, targets[b, u]] -= label_share
                if clamp > 0:
                    for v in range(logits.shape[3]):
                        gradient[b, t, u, v] = min(max(gradient[b, t, u, v], -bound), bound)
    clear_padding(frames, labels, gradient, thread, threads)


class KernelLoss(Function):
    """-log P(targets | logits) of every utterance, (B,) float32; the gradient is computed when it is asked for."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, frames: Tensor, labels: Tensor, blank: int, clamp: float
    ) -> Tensor:
        """`logits` float32 and contiguous, the others int64 and contiguous, all on the CPU; `blank` not negative."""
        batch, longest, columns, _ = logits.shape
        peak, total = logits.new_empty(2, batch, longest, columns)
        by_diagonals = (3, batch, longest + columns - 1, columns)
        log_blank, log_label, alpha = logits.new_empty(by_diagonals, dtype=torch.float64)
        losses = logits.new_empty(batch, dtype=torch.float64)
        utterances = (targets.numpy(), frames.numpy(), labels.numpy(), blank)
        lattice = (log_blank.numpy(), log_label.numpy())
        on_threads(read_logits, logits.detach().numpy(), *utterances, peak.numpy(), total.numpy(), *lattice)
        on_threads(sum_forward, *lattice, *utterances[1:3], alpha.numpy(), losses.numpy())
        ctx.save_for_backward(logits, targets, frames, labels, peak, total, log_blank, log_label, alpha, losses)
        ctx.blank, ctx.clamp = blank, clamp
        return losses.float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """`upstream` (B,): the gradient of each loss."""
        logits, *saved = ctx.saved_tensors
        targets, frames, labels, peak, total, log_blank, log_label, alpha, losses = (each.numpy() for each in saved)
        by_blank, by_label = logits.new_empty(2, *alpha.shape).numpy()
        on_threads(sum_backward, log_blank, log_label, frames, labels, alpha, losses, by_blank, by_label)
        gradient = torch.empty_like(logits)
        utterances = (targets, frames, labels, ctx.blank)
        node = (peak, total, by_blank, by_label)
        scale = (np.float32(ctx.clamp), upstream.contiguous().numpy())
        on_threads(write_gradient, logits.detach().numpy(), *utterances, *node, *scale, gradient.numpy())
        return gradient, None, None, None, None, None
