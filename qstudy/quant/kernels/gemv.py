"""One row of codes times a packed matrix, without unpacking it: what streaming spends its time on.

Inputs are u8 (a code + 128), sums int32, weights 2, 3, 4 or 8 bits. Narrow weights are indices into a table of int8
numbers that one instruction looks up for a whole vector: uniform levels and codebooks cost the same, and `bits` bits
per weight come from memory. What the 128 adds is taken back exactly: the sums begin at `start`.

Layout, bytes: [block of ROWS rows][step][plane][ROWS rows][4 columns]. A byte holds one field of several columns, 4
apart: two of 4 bits or four of 2 bits; 3 bits lie in two planes of 2-bit fields and one of single bits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from qstudy.jit import compiled
from qstudy.quant.kernels import ir

VECTORS = 8
"""Of sums per block, so that the multiplier has work while each waits for its last product."""
ROWS = VECTORS * ir.LANES
WIDTHS = (2, 3, 4, 8) if ir.WIDE or "avx2" in ir.FEATURES else (8,)
"""For which there is a kernel; without an instruction that looks bytes up, weights are better unpacked once."""
TABLE = 64
"""Bytes of one field's table."""
EACH_BYTE = 0x01010101
BY_SIX_BITS = "llvm.x86.avx512.permvar.qi.512" if ir.WIDE and "avx512vbmi" in ir.FEATURES else ""
"""LLVM's name of `vpermb`: of an index, it sees the low six bits."""


class Part(NamedTuple):
    """Where some bits of a weight lie."""

    plane: int
    shift: int
    """In the plane's byte."""
    bits: int
    position: int
    """In the weight."""
    seat: int
    """In an index of six bits, the rest of which does not matter: where it lies already, if that is low enough."""


THIRD_BITS = ((5, 5), (0, 0), (2, 2), (6, 2), (4, 4), (1, 1), (3, 3), (7, 3))
"""Of each 3-bit field: shift and seat of the highest bit; it must not sit on the other two."""
FIELDS: dict[int, list[list[Part]]] = {
    8: [[Part(0, 0, 8, 0, 0)]],
    4: [[Part(0, shift, 4, 0, 0)] for shift in (0, 4)],
    3: [
        [Part(field // 4, 2 * (field % 4), 2, 0, (0, 2, 4, 0)[field % 4]), Part(2, shift, 1, 2, seat)]
        for field, (shift, seat) in enumerate(THIRD_BITS)
    ],
    2: [[Part(0, shift, 2, 0, seat)] for shift, seat in ((0, 0), (2, 2), (4, 4), (6, 0))],
}
"""Width -> fields of a step, 4 columns each -> parts of a weight."""


def planes(bits: int) -> int:
    """Planes of a step."""
    return 1 + max(part.plane for parts in FIELDS[bits] for part in parts)


def steps(columns: int, bits: int) -> int:
    """Steps that so many columns take."""
    return -(-columns // (4 * len(FIELDS[bits])))


def arrange(indices: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Lay a matrix out for the kernel.

    Args:
        indices: (rows, columns), below 2**bits; at 8 bits the bytes of int8. Missing rows and columns become zeros.
        bits: one of WIDTHS.

    Returns:
        (blocks, steps, planes, ROWS, 4).
    """
    rows, columns = indices.shape
    fields, blocks, count = FIELDS[bits], -(-rows // ROWS), steps(columns, bits)
    padded = np.zeros((blocks * ROWS, count * len(fields) * 4), np.uint8)
    padded[:rows, :columns] = indices
    fielded = padded.reshape(blocks, ROWS, count, len(fields), 4).transpose(3, 0, 2, 1, 4)
    arranged = np.zeros((blocks, count, planes(bits), ROWS, 4), np.uint8)
    for values, parts in zip(fielded, fields, strict=True):
        for plane, shift, width, position, _ in parts:
            arranged[:, :, plane] |= (values >> position & (2**width - 1)) << shift
    return arranged


def restore(arranged: NDArray[np.uint8], bits: int, rows: int, columns: int) -> NDArray[np.uint8]:
    """The inverse of `arrange`: indices (rows, columns)."""
    blocks, count = arranged.shape[:2]
    fielded = np.zeros((len(FIELDS[bits]), blocks, count, ROWS, 4), np.uint8)
    for values, parts in zip(fielded, FIELDS[bits], strict=True):
        for plane, shift, width, position, _ in parts:
            values |= (arranged[:, :, plane] >> shift & (2**width - 1)) << position
    padded = fielded.transpose(1, 3, 2, 0, 4).reshape(blocks * ROWS, -1)
    return np.ascontiguousarray(padded[:rows, :columns])


def tables(numbers: NDArray[np.int8], bits: int) -> NDArray[np.int8]:
    """What the kernel looks weights up in: (fields, TABLE), from the 2**bits numbers that indices stand for."""
    if not BY_SIX_BITS:
        return np.tile(np.resize(numbers, TABLE), (len(FIELDS[bits]), 1))
    index = np.arange(TABLE)
    return np.stack(
        [numbers[sum((index >> p.seat & 2**p.bits - 1) << p.position for p in parts)] for parts in FIELDS[bits]]
    )


def reference(x: NDArray[Any], weight: NDArray[Any], start: NDArray[Any]) -> NDArray[np.int32]:
    """What the kernels compute, in NumPy: x (D,) u8, weight (H, D) int8, start (H,) int32: (H,) int32."""
    return (start + weight.astype(np.int64) @ x.astype(np.int64)).astype(np.int32)


def _weights(b: ir.IRBuilder, bits: int, words: list[ir.Value], parts: list[Part], table: ir.Value) -> ir.Value:
    """One field's weights, 4 in each lane, int8."""
    if bits == 8:
        return words[0]
    index = ir.constant(ir.INTEGERS, 0)
    for part in parts:
        seat = part.seat if BY_SIX_BITS else part.position
        move = part.shift - seat
        word = (b.lshr if move > 0 else b.shl)(words[part.plane], ir.constant(ir.INTEGERS, abs(move)))
        own = 255 if part is parts[0] else 2**part.bits - 1 << seat
        mask = ir.constant(ir.INTEGERS, own * EACH_BYTE)
        index = b.or_(b.and_(word, mask), b.and_(index, b.not_(mask)))
    if BY_SIX_BITS:
        kind = ir.BYTES
        operands = [b.bitcast(table, kind), b.bitcast(index, kind)]
        return b.bitcast(b.call(ir.function(b, BY_SIX_BITS, kind, [kind] * 2), operands), ir.INTEGERS)
    return ir.look_up_bytes(b, table, b.and_(index, ir.constant(ir.INTEGERS, (2**bits - 1) * EACH_BYTE)))


def block(bits: int) -> Callable[..., None]:
    """The kernel of one block: block(x, weights, steps, table, sums), all int64: addresses, and a count.

    It adds to the sums (ROWS,) int32 the weights' product with x, u8, as many as the steps have columns.
    """
    fields, depth = FIELDS[bits], planes(bits)
    vector = 4 * ir.LANES  # bytes

    def generate(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        x, weights, count, table, sums = arguments
        entries = [ir.load(b, ir.offset(b, table, field, TABLE), ir.INTEGERS) for field in range(len(fields))]
        places = [ir.offset(b, sums, n, vector) for n in range(VECTORS)]

        def step(index: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
            at, columns = (
                ir.offset(b, weights, index, depth * VECTORS * vector),
                ir.offset(b, x, index, 4 * len(fields)),
            )
            four = [ir.splat(b, ir.load(b, ir.offset(b, columns, field, 4), ir.I32)) for field in range(len(fields))]
            after = []
            for n, total in enumerate(totals):
                words = [ir.load(b, ir.offset(b, at, p * VECTORS + n, vector), ir.INTEGERS) for p in range(depth)]
                for inputs, parts, entry in zip(four, fields, entries, strict=True):
                    total = ir.dot_u8_s8(b, total, inputs, _weights(b, bits, words, parts, entry))
                after.append(total)
            return after

        totals = ir.loop(b, count, [ir.load(b, place, ir.INTEGERS) for place in places], step)
        for total, place in zip(totals, places, strict=True):
            ir.store(b, total, place)
        return context.get_dummy_value()

    def typing(typing_context: Any, x: Any, weights: Any, count: Any, table: Any, sums: Any) -> Any:
        return types.void(*[types.int64] * 5), generate

    return intrinsic(typing)


block_8, block_4, block_3, block_2 = (block(bits if bits in WIDTHS else 8) for bits in (8, 4, 3, 2))
ROW_BYTES = 4 * ROWS


@compiled()
def product(bits, x, weights, count, table, sums, blocks):
    """Add a matrix's product with one row to the sums.

    Args, all int64: width of the weights; addresses of x (u8, zero beyond its end) and of the arranged weights; their
    steps; addresses of the tables and of the sums (int32, ROWS per block); the number of blocks.
    """
    for number in range(blocks):
        at = sums + number * ROW_BYTES
        if bits == 8:
            block_8(x, weights + number * count * ROW_BYTES, count, table, at)
        elif bits == 4:
            block_4(x, weights + number * count * ROW_BYTES, count, table, at)
        elif bits == 3:
            block_3(x, weights + number * count * 3 * ROW_BYTES, count, table, at)
        else:
            block_2(x, weights + number * count * ROW_BYTES, count, table, at)
