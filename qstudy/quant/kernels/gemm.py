"""Small matrix products that stay in registers: the rows of a batch times a packed weight matrix, one step of an LSTM.

A tile keeps the sums of a few rows and 2 vectors of outputs in registers while it runs along the depth. Weights are
packed in the order in which tiles read them: [block of 2 * LANES outputs][depth][2 vectors][LANES], 32-bit words; a
word holds one float32, four int8, or two bfloat16 that lie beside each other along the depth.

What a processor must offer: nothing; LANES is 16 with AVX-512, else 8. VNNI multiplies four bytes at once, AVX-512 BF16
two bfloat16 (there is no such product without it), AMX sixteen rows by sixteen outputs of either (`tiles`); elsewhere
plain vectors give the same integers. Twin: `reference`, equal to the bit for integers and for floats that hold whole
numbers.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from qstudy.quant.kernels import ir, tiles

VECTORS = 2
BLOCK = VECTORS * ir.LANES
"""Outputs per block."""
HEIGHTS = (1, 2, 4, 8) if ir.WIDE else (1, 2, 4)
"""Rows of a tile: as many sums as registers hold beside the weights."""
Kind = Literal["f32", "s8", "bf16"]
PER_WORD = {torch.float32: 1, torch.int8: 4, torch.bfloat16: 2}


def product(kind: Kind, transposed: bool = False) -> Callable[..., None]:
    """An intrinsic: multiply(x, x_stride, weight, depth, start, start_stride, out, out_stride, blocks, rows), int64.

    x: address of the rows; float32, bfloat16, or uint8 for `s8`. weight: address of what `pack` made. depth: words
    along the sum. out: address of rows of blocks * BLOCK sums, float32 or int32. start: address of what the sums start
    from, rows like those of `out`, and perhaps the same; with a stride of 0 one row serves all. Strides in bytes.

    `transposed`: x lies with the sum along its rows, x_stride apart, and what else are its rows beside each other.
    """

    def generate(context: Any, b: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        if ir.AMX and kind in tiles.MULTIPLY and not transposed:
            whole = b.icmp_signed("==", b.srem(arguments[3], ir.I64(tiles.WORDS)), ir.I64(0))
            with b.if_else(whole) as (by_tiles, by_vectors):
                with by_tiles:
                    tiles.multiply(b, kind, arguments)
                with by_vectors:
                    _by_vectors(b, kind, transposed, arguments)
        else:
            _by_vectors(b, kind, transposed, arguments)
        return context.get_dummy_value()

    def typing(
        _: Any,
        x: Any,
        x_stride: Any,
        weight: Any,
        depth: Any,
        start: Any,
        start_stride: Any,
        out: Any,
        out_stride: Any,
        blocks: Any,
        rows: Any,
    ) -> Any:
        return types.void(*[types.int64] * 10), generate

    return intrinsic(typing)


def _by_vectors(b: ir.IRBuilder, kind: Kind, transposed: bool, arguments: Sequence[ir.Value]) -> None:
    """The product in registers, for any depth."""
    x, x_stride, weight, depth, start, start_stride, out, out_stride, blocks, rows = arguments
    row, word = (ir.I64(4), x_stride) if transposed else (x_stride, ir.I64(4))
    strides = (row, start_stride, out_stride)
    block_bytes = b.mul(depth, ir.I64(4 * BLOCK))
    height = ir.I64(HEIGHTS[-1])

    def block(index: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        columns = b.add(weight, b.mul(index, block_bytes))
        corners = (x, ir.offset(b, start, index, 4 * BLOCK), ir.offset(b, out, index, 4 * BLOCK))

        def strip(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            first = b.mul(number, height)
            places = [b.add(corner, b.mul(first, stride)) for corner, stride in zip(corners, strides, strict=True)]
            tile = Tile(b.sub(rows, first), list(zip(places, strides, strict=True)), word, columns, depth)
            _choose(b, kind, HEIGHTS, tile)
            return []

        ir.loop(b, b.sdiv(b.add(rows, b.sub(height, ir.I64(1))), height), [], strip)
        return []

    ir.loop(b, blocks, [], block)


class Tile(NamedTuple):
    """Where a tile stands."""

    rows: ir.Value
    """How many are left."""
    arrays: list[tuple[ir.Value, ir.Value]]
    """Address of the first row and stride of the inputs, of the sums' start, and of the outputs."""
    word: ir.Value
    """From one word of an input row to the next, in bytes."""
    columns: ir.Value
    """Address of the block of weights."""
    depth: ir.Value
    """Words along the sum."""


def _choose(b: ir.IRBuilder, kind: Kind, heights: tuple[int, ...], tile: Tile) -> None:
    """The lowest tile that holds the rows, or the highest."""
    if len(heights) == 1:
        return _run(b, kind, heights[0], tile)
    with b.if_else(b.icmp_signed("<=", tile.rows, ir.I64(heights[0]))) as (fits, higher):
        with fits:
            _run(b, kind, heights[0], tile)
        with higher:
            _choose(b, kind, heights[1:], tile)
    return None


def _run(b: ir.IRBuilder, kind: Kind, height: int, tile: Tile) -> None:
    """`height` rows of one block; beyond `tile.rows`, the last row is computed again, as if it were another."""
    last = b.sub(tile.rows, ir.I64(1))
    numbers = [b.select(b.icmp_signed("<", ir.I64(row), last), ir.I64(row), last) for row in range(height)]
    inputs, starts, outputs = (
        [b.add(first, b.mul(number, stride)) for number in numbers] for first, stride in tile.arrays
    )
    scalar, words, sums = OPERANDS[kind]

    def step(index: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        here = ir.offset(b, tile.columns, index, 4 * BLOCK)
        vectors = [ir.load(b, ir.offset(b, here, n, 4 * ir.LANES), words) for n in range(VECTORS)]
        along = b.mul(index, tile.word)
        row_words = [ir.splat(b, ir.load(b, b.add(row, along), scalar)) for row in inputs]
        pairs = [(word, vector) for word in row_words for vector in vectors]
        return [MULTIPLY[kind](b, total, *pair) for total, pair in zip(totals, pairs, strict=True)]

    places = [(row, 4 * ir.LANES * n) for row in range(height) for n in range(VECTORS)]
    initial = [ir.load(b, ir.offset(b, starts[row], n, 1), sums) for row, n in places]
    totals = ir.loop(b, tile.depth, initial, step)
    for (row, n), total in zip(places, totals, strict=True):
        ir.store(b, total, ir.offset(b, outputs[row], n, 1))


OPERANDS = {
    "f32": (ir.F32, ir.FLOATS, ir.FLOATS),
    "s8": (ir.I32, ir.INTEGERS, ir.INTEGERS),
    "bf16": (ir.I32, ir.INTEGERS, ir.FLOATS),
}
"""Types of one word of a row, of a vector of weights, of a vector of sums."""
MULTIPLY: dict[Kind, Callable[..., ir.Value]] = {
    "f32": lambda b, total, x, y: ir.multiply_add(b, x, y, total),
    "s8": ir.dot_u8_s8,
    "bf16": ir.dot_bf16,
}
multiply_f32, multiply_s8 = product("f32"), product("s8")
multiply_transposed_f32 = product("f32", transposed=True)
multiply_bf16 = product("bf16") if ir.BF16 else product("f32")  # never reached where there is no bfloat16


def pack(weight: Tensor) -> Tensor:
    """Weights (N, K) float32, int8 or bfloat16 in the order of the tiles: (blocks, depth, BLOCK) words, zero-padded.

    For AMX the depth of int8 and bfloat16 becomes a multiple of `tiles.WORDS`.
    """
    per_word = PER_WORD[weight.dtype]
    rows, columns = weight.shape
    multiple = per_word * (tiles.WORDS if ir.AMX and per_word > 1 else 1)
    if rows % BLOCK or columns % multiple:
        weight = F.pad(weight, (0, -columns % multiple, 0, -rows % BLOCK))
    words = weight if per_word == 1 else weight.contiguous().view(torch.int32)
    return words.view(-1, BLOCK, words.shape[1]).transpose(1, 2).contiguous()


def reference(x: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """What the products compute: x (M, K) times weight (N, K) transposed; exact for int64 operands."""
    return x @ weight.T
