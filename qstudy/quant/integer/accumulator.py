"""The integer arithmetic that training and the packed model share: codes, exact accumulators, rescaling."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qstudy.errors import UserError
from qstudy.quant.arithmetic import Windows, whole
from qstudy.quant.integer.matmul import EXACT_FLOAT32, integer_matmul
from qstudy.quant.kernels import codes as by_kernel
from qstudy.quant.kernels import usable
from qstudy.quant.quantizers import ActivationQuantizer, bounds, integer_type
from qstudy.threads import on_threads

SINGLE = 2**16  # values that one thread converts sooner than two can start


class QParams(NamedTuple):
    """One activation quantizer as the device knows it."""

    scale: Tensor
    """() float32."""
    zero_point: Tensor | None
    """() float32, a whole number; None: 0, and the quantizer is symmetric. Known without asking a GPU for a number."""
    bits: int

    @classmethod
    def read(cls, scale: Tensor, zero_point: Tensor, bits: int) -> "QParams":
        """Of numbers that were stored: a zero point of 0 is none."""
        return cls(scale, zero_point if zero_point else None, bits)

    def bounds(self) -> tuple[int, int]:
        """Least and greatest code."""
        return bounds(self.bits, narrow=self.zero_point is None)

    def values(self, codes: Tensor) -> Tensor:
        """What codes (...) stand for, (...) float32."""
        return (codes if self.zero_point is None else codes - self.zero_point) * self.scale

    def quantize(self, x: Tensor) -> Tensor:
        """x (...) float32 to integers (...), int8 or int16."""
        return self.quantize_and_inside(x)[0]

    def quantize_and_inside(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The codes of x (...), and where x was not clipped, (...) bool."""
        if x.dtype == torch.float32 and self.bits <= 8 and usable(x, self.scale):
            return self._by_kernel(x.detach())
        units = x / self.scale
        nearest = torch.round(units if self.zero_point is None else units + self.zero_point)
        low, high = self.bounds()
        codes = nearest.clamp(low, high).nan_to_num(low)
        return codes.to(integer_type(self.bits)), codes == nearest

    def _by_kernel(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.bounds()
        dense = x if is_dense(x) else x.contiguous()  # its elements in the order of memory
        integers, inside = torch.empty_like(dense, dtype=torch.int8), torch.empty_like(dense, dtype=torch.bool)
        arrays = [in_memory(each).numpy() for each in (dense, integers, inside)]
        qparams = [np.float32(each) for each in (self.scale.detach(), self.zero_point or 0, low, high)]
        if x.numel() < SINGLE:
            by_kernel.quantize(arrays[0], *qparams, *arrays[1:], 0, 1)
        else:
            on_threads(by_kernel.quantize, arrays[0], *qparams, *arrays[1:])
        return integers, inside


def device_qparams(quantizer: ActivationQuantizer) -> QParams:
    """An activation quantizer as the device knows it.

    Raises:
        UserError: it has other integers than the device, whose sums would be others.
    """
    scale, zero_point = quantizer.qparams()
    found = QParams(scale, zero_point if quantizer.shifted else None, quantizer.bits)
    levels = quantizer.levels(found.zero_point is not None)
    if levels != found.bounds():
        low, high = found.bounds()
        raise UserError(
            f"{quantizer.layer}: its {type(quantizer).__name__} has the integers from {levels[0]} to {levels[1]}, but "
            f"a device those from {low} to {high}; set `low` and `high` to these."
        )
    return found


def is_dense(x: Tensor) -> bool:
    """Whether x fills a piece of memory without gaps, in whatever order of its dimensions."""
    return x.is_contiguous() or (x.dim() > 1 and x.transpose(0, 1).is_contiguous())


def in_memory(x: Tensor) -> Tensor:
    """A dense x as it lies in memory, (n,)."""
    return (x if x.is_contiguous() else x.transpose(0, 1)).view(-1)


def accumulate(x: Tensor, zero_point: Tensor | None, weight: Tensor) -> Tensor:
    """The accumulators of a product: sum over D of (x - zero_point) * weight, exactly.

    Args:
        x: codes (..., D) int8 or int16.
        zero_point: () float32, a whole number; None: 0.
        weight: (H, D) int8 or int16.

    Returns:
        (..., H) int32 for int8 operands, else float64 that holds whole numbers.
    """
    return _shifted(integer_matmul(x, weight), zero_point, weight)


def accumulate_block_diagonal(x: Tensor, zero_point: Tensor | None, weight: Tensor, windows: Windows = whole) -> Tensor:
    """`accumulate`, each of G groups of inputs with its own H / G rows: x (..., G, D), weight (H, D) -> (..., H).

    Where x is a signal, `windows` makes its groups.
    """
    narrow = x.dtype == weight.dtype == torch.int8
    exact = torch.float32 if narrow and weight.shape[1] <= EXACT_FLOAT32 else torch.float64
    with torch.autocast(x.device.type, enabled=False):
        product = windows.product(x, weight.to(exact))
    return _shifted(product.int() if narrow else product.double(), zero_point, weight)


def _shifted(accumulator: Tensor, zero_point: Tensor | None, weight: Tensor) -> Tensor:
    """A product (..., H) of codes, less what their zero point adds."""
    if zero_point is not None:
        accumulator = accumulator - zero_point.to(accumulator.dtype) * weight.sum(1, dtype=accumulator.dtype)
    return accumulator


def rescale(accumulator: Tensor, input_scale: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """Accumulators (..., H) to float32, by the input's scale () and the weights' (H,) or (1,), plus a bias (H,)."""
    scale = input_scale * scale
    if accumulator.dtype == torch.int32 and usable(accumulator, scale):
        return _rescale_by_kernel(accumulator.contiguous(), scale, bias)
    y = (accumulator * scale).float()
    return y if bias is None else y + bias


def _rescale_by_kernel(accumulator: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    width = accumulator.shape[-1]
    out = torch.empty(accumulator.shape)
    row = scale.detach().expand(width).contiguous()
    added = row.new_empty(0) if bias is None else bias.detach().float().contiguous()
    arrays = [each.numpy() for each in (accumulator.view(-1, width), row, added, out.view(-1, width))]
    if out.numel() < SINGLE:
        by_kernel.rescale(*arrays, 0, 1)
    else:
        on_threads(by_kernel.rescale, *arrays)
    return out


_records: list[list[Tensor]] = []


@contextmanager
def recorded_accumulators() -> Iterator[list[Tensor]]:
    """Collect every accumulator that integer layers compute inside the `with` block, in the order of the calls,
    of which those on several threads have none.

    Training's layers and the packed model's call `record` alike, so that a test can hold one against the other. A
    linear layer gives one tensor (..., H), an LSTM two: of the inputs' product and of the hidden states', (T, B, 4H)
    each.
    """
    record: list[Tensor] = []
    _records.append(record)
    try:
        yield record
    finally:
        del _records[next(i for i, each in enumerate(_records) if each is record)]


def recording() -> bool:
    """Whether anyone collects accumulators."""
    return bool(_records)


def record(accumulator: Tensor) -> None:
    """Hand a copy of the accumulators (..., H), int32 or whole float64, to whoever collects them."""
    for each in _records:
        each.append(accumulator.detach().clone())
