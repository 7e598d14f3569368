"""Small matrix products that stay in registers: the rows of a batch times a packed weight matrix, one step of an LSTM.

A tile keeps the sums of a few rows and 2 vectors of outputs in registers while it runs along the depth. Weights are
packed in the order in which tiles read them: [block of 2 * LANES outputs][depth][2 vectors][LANES], 32-bit words; a
word holds one float32, four int8, or two bfloat16 that lie beside each other along the depth.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from qstudy.quant.kernels import ir

VECTORS = 2
BLOCK = VECTORS * ir.LANES
"""Outputs per block."""
HEIGHTS = (1, 2, 4, 8) if ir.WIDE else (1, 2, 4)
"""Rows of a tile: as many sums as registers hold beside the weights."""
Kind = Literal["f32", "s8", "bf16"]
PER_WORD = {torch.float32: 1, torch.int8: 4, torch.bfloat16: 2}


def product(kind: Kind) -> Callable[..., None]:
    """An intrinsic: multiply(x, x_stride, weight, depth, out, out_stride, blocks, rows), all int64.

    x: address of the rows; float32, bfloat16, or uint8 for `s8`. weight: address of what `pack` made. depth: words
    along the sum. out: address of rows of blocks * BLOCK sums, float32 or int32. Strides in bytes.
    """

    def generate(context: Any, b: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        x, x_stride, weight, depth, out, out_stride, blocks, rows = arguments
        block_bytes = b.mul(depth, ir.I64(4 * BLOCK))
        height = ir.I64(HEIGHTS[-1])

        def block(index: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            columns = b.add(weight, b.mul(index, block_bytes))
            sums = ir.offset(b, out, index, 4 * BLOCK)

            def strip(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                first = b.mul(number, height)
                place = (b.add(x, b.mul(first, x_stride)), b.add(sums, b.mul(first, out_stride)))
                _tiles(b, kind, HEIGHTS, b.sub(rows, first), place, (x_stride, out_stride), columns, depth)
                return []

            ir.loop(b, b.sdiv(b.add(rows, b.sub(height, ir.I64(1))), height), [], strip)
            return []

        ir.loop(b, blocks, [], block)
        return context.get_dummy_value()

    def typing(
        _: Any, x: Any, x_stride: Any, weight: Any, depth: Any, out: Any, out_stride: Any, blocks: Any, rows: Any
    ) -> Any:
        return types.void(*[types.int64] * 8), generate

    return intrinsic(typing)


def _tiles(
    b: ir.IRBuilder,
    kind: Kind,
    heights: tuple[int, ...],
    rows: ir.Value,
    place: tuple[ir.Value, ir.Value],
    strides: tuple[ir.Value, ir.Value],
    columns: ir.Value,
    depth: ir.Value,
) -> None:
    """The lowest tile that holds the rows; the highest holds what is left."""
    if len(heights) == 1:
        return _tile(b, kind, heights[0], rows, place, strides, columns, depth)
    with b.if_else(b.icmp_signed("<=", rows, ir.I64(heights[0]))) as (fits, higher):
        with fits:
            _tile(b, kind, heights[0], rows, place, strides, columns, depth)
        with higher:
            _tiles(b, kind, heights[1:], rows, place, strides, columns, depth)
    return None


def _tile(
    b: ir.IRBuilder,
    kind: Kind,
    height: int,
    rows: ir.Value,
    place: tuple[ir.Value, ir.Value],
    strides: tuple[ir.Value, ir.Value],
    columns: ir.Value,
    depth: ir.Value,
) -> None:
    """`height` rows of one block; beyond `rows`, the last row is computed again and written to the same place."""
    scalar = ir.F32 if kind == "f32" else ir.I32
    words = ir.FLOATS if kind == "f32" else ir.INTEGERS
    zero = ir.zeros(ir.INTEGERS if kind == "s8" else ir.FLOATS)
    last = b.sub(rows, ir.I64(1))
    numbers = [b.select(b.icmp_signed("<", ir.I64(row), last), ir.I64(row), last) for row in range(height)]
    inputs, outputs = ([b.add(place[side], b.mul(number, strides[side])) for number in numbers] for side in (0, 1))

    def step(index: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        here = ir.offset(b, columns, index, 4 * BLOCK)
        vectors = [ir.load(b, ir.offset(b, here, n, 4 * ir.LANES), words) for n in range(VECTORS)]
        row_words = [ir.splat(b, ir.load(b, ir.offset(b, row, index, 4), scalar)) for row in inputs]
        pairs = [(word, vector) for word in row_words for vector in vectors]
        return [MULTIPLY[kind](b, total, *pair) for total, pair in zip(totals, pairs, strict=True)]

    totals = ir.loop(b, depth, [zero] * (height * VECTORS), step)
    for number, total in enumerate(totals):
        row, vector = divmod(number, VECTORS)
        ir.store(b, total, ir.offset(b, outputs[row], vector, 4 * ir.LANES))


MULTIPLY: dict[Kind, Callable[..., ir.Value]] = {
    "f32": lambda b, total, x, y: ir.fma(b, x, y, total),
    "s8": ir.dot_u8_s8,
    "bf16": ir.dot_bf16,
}
multiply_f32, multiply_s8, multiply_bf16 = product("f32"), product("s8"), product("bf16")


def pack(weight: Tensor) -> Tensor:
    """Weights (N, K) float32, int8 or bfloat16 in the order of the tiles: (blocks, depth, BLOCK) words, zero-padded."""
    per_word = PER_WORD[weight.dtype]
    rows, columns = weight.shape
    if rows % BLOCK or columns % per_word:
        weight = F.pad(weight, (0, -columns % per_word, 0, -rows % BLOCK))
    words = weight if per_word == 1 else weight.contiguous().view(torch.int32)
    return words.view(-1, BLOCK, words.shape[1]).transpose(1, 2).contiguous()


def reference(x: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """What the products compute: x (M, K) times weight (N, K) transposed; exact for int64 operands."""
    return x @ weight.T
