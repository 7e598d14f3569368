"""Values to the nearest level of a uniform quantizer, and the gradient of that: one pass over memory each on the CPU.

Arrays of the loops: values (rows, columns) float32, scales (rows,) or (1,) float32. They divide, round and multiply
just as torch does, one float32 operation after the other, so that both ways give the same bits. Every loop takes its
share of the rows from its last two arguments, see `threads.on_threads`.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from qstudy.jit import compiled
from qstudy.threads import on_threads

ROUND = np.float32(1.5 * 2**23)  # x + ROUND - ROUND is the integer nearest to x, ties to even, if |x| < 2**22
SINGLE = 2**19  # values that one thread quantizes sooner than two can start
CHUNK = 1024  # values whose products are summed in float32


@compiled()
def _nearest_levels(
    x: Any, scale: Any, zero: Any, low: Any, high: Any, out: Any, inside: Any, thread: int, threads: int
) -> None:
    for row in range(thread, x.shape[0], threads):
        size = scale[row % len(scale)]
        for column in range(x.shape[1]):
            exact = x[row, column] / size + zero
            clipped = low if exact < low else (high if exact > high else exact)
            code = clipped + ROUND - ROUND
            out[row, column] = (code - zero) * size
            inside[row, column] = exact + ROUND - ROUND == code


@compiled({"nnan", "nsz", "reassoc"})
def _largest(x: Any, out: Any, thread: int, threads: int) -> None:
    for row in range(thread, x.shape[0], threads):
        largest: Any = np.float32(0)
        for value in x[row]:
            largest = max(largest, abs(value))
        out[row] = largest


@compiled()
def _quantize(x: Any, scale: Any, low: Any, high: Any, out: Any, thread: int, threads: int) -> None:
    for row in range(thread, x.shape[0], threads):
        size = scale[row % len(scale)]
        for column in range(x.shape[1]):
            exact = x[row, column] / size
            clipped = low if exact < low else (high if exact > high else exact)
            out[row, column] = np.int8(clipped + ROUND - ROUND)


@compiled()
def _mask(grad: Any, inside: Any, out: Any, thread: int, threads: int) -> None:
    for row in range(thread, grad.shape[0], threads):
        for column in range(grad.shape[1]):
            out[row, column] = grad[row, column] if inside[row, column] else np.float32(0)


@compiled({"reassoc"})
def _learned_gradient(
    x: Any, scale: Any, low: Any, high: Any, grad: Any, out: Any, sums: Any, thread: int, threads: int
) -> None:
    for row in range(thread, x.shape[0], threads):
        size, total = scale[row % len(scale)], 0.0
        for begin in range(0, x.shape[1], CHUNK):
            end = begin + CHUNK
            values, slopes, passed = x[row, begin:end], grad[row, begin:end], out[row, begin:end]
            part: Any = np.float32(0)
            for i in range(len(values)):
                ratio, slope = values[i] / size, slopes[i]
                clipped = low if ratio <= low else (high if ratio >= high else ratio)
                inside = (ratio > low) & (ratio < high)
                part += slope * (np.rint(ratio) - ratio if inside else clipped)
                passed[i] = slope if inside else np.float32(0)
            total += part
        sums[row] = total


def nearest_levels(x: Tensor, scale: Tensor, zero_point: Tensor | None, low: int, high: int) -> tuple[Tensor, Tensor]:
    """The values of the nearest levels, and where x was not clipped.

    Args:
        x: any shape, float.
        scale: what one level is worth, () or one for each row of a matrix x, (rows, 1).
        zero_point: the integer (as float) that stands for 0.0, (); None: 0.
        low: the least integer.
        high: the greatest integer.

    Returns:
        Values as x, and bool as x.
    """
    if not fits(x, scale):
        return nearest_levels_portable(x, scale, zero_point, low, high)
    out, inside = torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)
    zero = np.float32(0 if zero_point is None else zero_point.item())
    arrays = rows(x), flat(scale), zero, np.float32(low), np.float32(high), rows(out)
    run(_nearest_levels, x.numel(), *arrays, rows(inside))
    return out, inside


def nearest_levels_portable(
    x: Tensor, scale: Tensor, zero_point: Tensor | None, low: int, high: int
) -> tuple[Tensor, Tensor]:
    """`nearest_levels` by torch, on every device, for every broadcast of scale and zero point."""
    exact = x / scale
    if zero_point is not None:
        exact.add_(zero_point)
    whole = exact.round_()
    codes = whole.clamp(low, high)
    inside = codes == whole
    if zero_point is not None:
        codes.sub_(zero_point)
    return codes.mul_(scale), inside


def largest(x: Tensor) -> Tensor:
    """The largest magnitude of each row of a matrix x, (rows, 1); a NaN counts as nothing on the CPU."""
    if not fits(x) or x.dim() != 2:
        return x.abs().amax(1, keepdim=True)
    out = x.new_empty(len(x), 1)
    run(_largest, x.numel(), rows(x), flat(out))
    return out


def quantize_symmetric(x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """The integers of the nearest levels, as x: int8, or int16 if the bounds need it; see `nearest_levels`."""
    if high > 127 or not fits(x, scale):
        return torch.round(x / scale).clamp_(low, high).to(torch.int8 if high < 128 else torch.int16)
    out = torch.empty_like(x, dtype=torch.int8)
    run(_quantize, x.numel(), rows(x), flat(scale), np.float32(low), np.float32(high), rows(out))
    return out


def mask(grad: Tensor, inside: Tensor) -> Tensor:
    """grad where inside (bool, the same shape), else zero."""
    if not (fits(grad) and inside.is_contiguous()):
        return grad * inside
    out = torch.empty_like(grad)
    run(_mask, grad.numel(), rows(grad), rows(inside), rows(out))
    return out


def learned_gradient(x: Tensor, scale: Tensor, low: int, high: int, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of x and, before LSQ's factor, of the scale (its shape); see `learned_step_size`."""
    if not (fits(x, scale) and fits(grad)):
        return learned_gradient_portable(x, scale, low, high, grad)
    out, sums = torch.empty_like(x), torch.empty(rows(x).shape[0], dtype=torch.float64)
    bounds = np.float32(low), np.float32(high)
    run(_learned_gradient, x.numel(), rows(x), flat(scale), *bounds, rows(grad), rows(out), sums.numpy())
    return out, sums.view(scale.numel(), -1).sum(1).to(scale.dtype).view(scale.shape)


def learned_gradient_portable(x: Tensor, scale: Tensor, low: int, high: int, grad: Tensor) -> tuple[Tensor, Tensor]:
    """`learned_gradient` by torch, on every device, for every broadcast of the scale."""
    ratio = x / scale
    inside = (ratio > low) & (ratio < high)
    slope = torch.where(inside, ratio.round() - ratio, ratio.clamp(low, high))
    return grad * inside, (grad * slope).sum_to_size(scale.shape)


def fits(x: Tensor, scale: Tensor | None = None) -> bool:
    """Whether the loops take it: contiguous float32 on the CPU, one scale, or one for each row of a matrix."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous() and x.numel() > 0 and x.dim() > 0
    if scale is None or not plain:
        return plain
    return scale.dtype == torch.float32 and (scale.numel() == 1 or (x.dim() == 2 and scale.shape == (len(x), 1)))


def rows(x: Tensor) -> np.ndarray:
    """x as a matrix, without a copy."""
    return x.detach().view(-1, x.shape[-1]).numpy()


def flat(x: Tensor) -> np.ndarray:
    """x as a vector."""
    return x.detach().reshape(-1).numpy()


def run(loop: Any, count: int, *arguments: Any) -> None:
    """Run a loop over `count` values, on as many threads as they are worth."""
    if count < SINGLE:
        loop(*arguments, 0, 1)
    else:
        on_threads(loop, *arguments)
