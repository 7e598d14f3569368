"""The transducer's head on the CPU, tile by tile: numba loops over float32 rows that lie in the second-level cache.

A row is a node (t, u) of the lattice of utterance b; `nodes` (N, 3) int64 has its b, t and u. A tile's arrays are
`hidden` (N, J) and `logits` (N, V), float32; arrays over all nodes are those of `kernels`. Loops over J and V become
vectors of whatever width the processor has, numba compiles for it; float32 arithmetic is all that they need. Every
kernel takes its share of the work from the last two arguments, see `threads.on_threads`. The twin in torch is
`head_portable`.
"""

import math

import numpy as np

from qstudy.jit import compiled
from qstudy.loss import kernels
from qstudy.loss.kernels import exponential, ordered, share
from qstudy.quant.kernels import cell
from qstudy.quant.kernels.cell import tanh

ONE = np.float32(1.0)
USES = (kernels, cell)


@compiled({"contract"}, USES)
def join_rows(
    encoded: np.ndarray,
    predicted: np.ndarray,
    nodes: np.ndarray,
    multiplied: bool,
    bent: bool,
    hidden: np.ndarray,
    thread: int,
    threads: int,
) -> None:
    """Write `hidden`: encoded (B, T, J) plus, or `multiplied` by, predicted (B, U+1, J), and its tanh if `bent`."""
    start, stop = share(len(nodes), thread, threads)
    for row in range(start, stop):
        b, t, u = nodes[row]
        left, right, out = encoded[b, t], predicted[b, u], hidden[row]
        for j in range(out.size):
            out[j] = left[j] * right[j] if multiplied else left[j] + right[j]
        if bent:
            for j in range(out.size):
                out[j] = tanh(out[j])


@compiled({"contract"}, USES)
def add_gradients(
    encoded: np.ndarray,
    predicted: np.ndarray,
    nodes: np.ndarray,
    multiplied: bool,
    bent: bool,
    hidden: np.ndarray,
    gradient: np.ndarray,
    of_encoded: np.ndarray,
    of_predicted: np.ndarray,
    thread: int,
    threads: int,
) -> None:
    """Add the gradients of both sides, `of_encoded` and `of_predicted`, that of `hidden` (N, J) being `gradient`, which
    is overwritten. Threads share the columns, so that no two add to one number."""
    start, stop = share(hidden.shape[1], thread, threads)
    for row in range(len(nodes)):
        b, t, u = nodes[row]
        slope, out = gradient[row, start:stop], hidden[row, start:stop]
        if bent:
            for j in range(out.size):
                slope[j] *= ONE - out[j] * out[j]
        left, right = encoded[b, t, start:stop], predicted[b, u, start:stop]
        of_left, of_right = of_encoded[b, t, start:stop], of_predicted[b, u, start:stop]
        if multiplied:
            for j in range(out.size):
                of_left[j] += slope[j] * right[j]
            for j in range(out.size):
                of_right[j] += slope[j] * left[j]
        else:
            for j in range(out.size):
                of_left[j] += slope[j]
            for j in range(out.size):
                of_right[j] += slope[j]


@compiled({"reassoc", "contract"}, USES)
def normalize(logits: np.ndarray) -> tuple[np.float32, np.float32]:
    """The maximum of one row (V,), and the sum of exp(x - maximum); NaN if any is, or all are -inf."""
    highest = np.int32(-kernels.POSITIVE)
    for v in range(logits.size):
        highest = max(highest, ordered(np.float32(logits[v]).view(np.int32)))
    peak = np.int32(ordered(highest)).view(np.float32)
    total = np.float32(0.0)
    for v in range(logits.size):
        total += exponential(logits[v] - peak)
    return peak, total


@compiled(uses=USES)
def read_rows(
    logits: np.ndarray,
    nodes: np.ndarray,
    targets: np.ndarray,
    labels: np.ndarray,
    blank: int,
    peak: np.ndarray,
    total: np.ndarray,
    log_blank: np.ndarray,
    log_label: np.ndarray,
    thread: int,
    threads: int,
) -> None:
    """As `kernels.read_logits`, of a tile."""
    start, stop = share(len(nodes), thread, threads)
    for row in range(start, stop):
        b, t, u = nodes[row]
        highest, total_here = normalize(logits[row])
        peak[b, t, u], total[b, t, u] = highest, total_here
        log_total = math.log(np.float64(total_here))
        log_blank[b, t + u, u] = np.float64(logits[row, blank] - highest) - log_total
        log_label[b, t + u, u] = -math.inf
        if u < labels[b]:
            log_label[b, t + u, u] = np.float64(logits[row, targets[b, u]] - highest) - log_total


@compiled({"contract"}, USES)
def write_rows(
    rows: np.ndarray,
    nodes: np.ndarray,
    targets: np.ndarray,
    labels: np.ndarray,
    blank: int,
    peak: np.ndarray,
    total: np.ndarray,
    by_blank: np.ndarray,
    by_label: np.ndarray,
    scale: np.float32,
    thread: int,
    threads: int,
) -> None:
    """As `kernels.write_gradient`, of a tile: logits `rows` (N, V) become `scale` times their gradient; no clamp."""
    start, stop = share(len(nodes), thread, threads)
    for row in range(start, stop):
        b, t, u = nodes[row]
        blank_share, label_share = by_blank[b, t + u, u] * scale, by_label[b, t + u, u] * scale
        highest, weight = peak[b, t, u], (blank_share + label_share) / total[b, t, u]
        out = rows[row]
        for v in range(out.size):
            out[v] = exponential(out[v] - highest) * weight
        out[blank] -= blank_share
        if u < labels[b]:
            out[targets[b, u]] -= label_share
