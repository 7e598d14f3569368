"""A few rows of codes times a packed matrix, without unpacking it: what streaming spends its time on.

Inputs are u8 (a code + 128), sums int32, weights 2, 3, 4 or 8 bits. Narrow weights are indices into a table of int8
numbers, which one instruction looks up for a whole vector: uniform levels and codebooks alike. What the 128 adds is
taken back exactly: the sums begin at `start`. A block of weights serves HEIGHT rows before the next is read.

What a processor must offer: VNNI (any width), which adds four products of bytes at once; or AVX2, which adds two in 16
bits (`vpmaddubsw`). So that no such sum saturates, a code is then taken as two nibbles, unless the numbers are at most
8 (`is_small`), and a step's sums go to 32 bits (`vpmaddwd`) before the next step. Elsewhere there is a kernel for 8
bits alone, of plain vectors. NumPy twin: `reference`.

Layout, bytes: [block of ROWS rows][step of COLUMNS columns][plane][ROWS rows][4 columns]. A step has as many planes as
a weight has bits. A byte holds one field of several columns: two of 4 bits; four of 2 bits; two of 3 bits, and beside
each of them one bit of a seventh or an eighth field.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from qstudy.jit import compiled
from qstudy.quant.kernels import ir

VECTORS = 8 if ir.WIDE else 4
"""Of sums per block, so that the multiplier has work while each waits for its last product."""
ROWS = VECTORS * ir.LANES
COLUMNS = 32
"""Of a step."""
SHUFFLES = ir.WIDE or "avx2" in ir.FEATURES
WIDTHS = (2, 3, 4, 8) if SHUFFLES else (8,)
"""For which there is a kernel; without an instruction that looks bytes up, weights are better unpacked once."""
PAIRS = SHUFFLES and not ir.VNNI
"""Whether products are added up in pairs of 16 bits."""
HEIGHT = 2 if PAIRS else 3
"""Rows of inputs that a block of weights is multiplied with at once, half as many vectors of sums at a time."""
FORMS = 3 if PAIRS else 1
"""In which a row of codes is wanted: its bytes, and for PAIRS their low and their high nibbles behind them."""
SMALL = 8
"""A step's sums of 8 pairs of codes with numbers up to here fit into 16 bits: 8 * 2 * 255 * 8 < 2**15."""
KINDS = (*WIDTHS, *((-4, -3, -2) if PAIRS else ()))
"""Widths of the kernels; negative: for small weights."""
TABLE = 64
"""Bytes of one table: 16 numbers, over and over."""
VECTOR = 4 * ir.LANES
PLANE = VECTORS * VECTOR


class Part(NamedTuple):
    """Where some bits of a weight lie."""

    plane: int
    shift: int
    """In the plane's byte."""
    bits: int
    position: int
    """In the weight."""
    seat: int
    """In an index of four bits, the rest of which does not matter."""


FIELDS: dict[int, list[list[Part]]] = {
    8: [[Part(plane, 0, 8, 0, 0)] for plane in range(8)],
    4: [[Part(plane, shift, 4, 0, 0)] for plane in range(4) for shift in (0, 4)],
    3: [
        *([Part(plane, shift, 3, 0, 0)] for plane in range(3) for shift in (0, 4)),
        *([Part(plane, shift, 1, plane, 3 - plane) for plane in range(3)] for shift in (3, 7)),
    ],
    2: [[Part(plane, shift, 2, 0, shift % 4)] for plane in range(2) for shift in (0, 2, 4, 6)],
}
"""Width -> fields of a step, 4 columns each -> parts of a weight."""
SEATS = {bits: sorted({tuple(part[2:] for part in parts) for parts in fields}) for bits, fields in FIELDS.items()}
"""Width -> ways in which an index is made of a weight: bits, position, seat of each part; there is a table for each."""


def steps(columns: int) -> int:
    """Steps that so many columns take."""
    return -(-columns // COLUMNS)


def is_small(numbers: NDArray[np.int8], bits: int) -> bool:
    """Whether the kernel takes whole codes for weights of these numbers; it makes no difference to what it computes."""
    return PAIRS and bits < 8 and bool((np.abs(numbers.astype(np.int16)) <= SMALL).all())


def arrange(indices: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Lay a matrix out for the kernel.

    Args:
        indices: (rows, columns), below 2**bits; at 8 bits the bytes of int8. Missing rows and columns become zeros.
        bits: one of WIDTHS.

    Returns:
        (blocks, steps, planes, ROWS, 4).
    """
    rows, columns = indices.shape
    blocks, count = -(-rows // ROWS), steps(columns)
    padded = np.zeros((blocks * ROWS, count * COLUMNS), np.uint8)
    padded[:rows, :columns] = indices
    fielded = padded.reshape(blocks, ROWS, count, COLUMNS // 4, 4).transpose(3, 0, 2, 1, 4)
    arranged = np.zeros((blocks, count, bits, ROWS, 4), np.uint8)
    for values, parts in zip(fielded, FIELDS[bits], strict=True):
        for plane, shift, width, position, _ in parts:
            arranged[:, :, plane] |= (values >> position & (2**width - 1)) << shift
    return arranged


def restore(arranged: NDArray[np.uint8], bits: int, rows: int, columns: int) -> NDArray[np.uint8]:
    """The inverse of `arrange`: indices (rows, columns)."""
    blocks, count = arranged.shape[:2]
    fielded = np.zeros((COLUMNS // 4, blocks, count, ROWS, 4), np.uint8)
    for values, parts in zip(fielded, FIELDS[bits], strict=True):
        for plane, shift, width, position, _ in parts:
            values |= (arranged[:, :, plane] >> shift & (2**width - 1)) << position
    padded = fielded.transpose(1, 3, 2, 0, 4).reshape(blocks * ROWS, count * COLUMNS)
    return np.ascontiguousarray(padded[:rows, :columns])


def tables(numbers: NDArray[np.int8], bits: int) -> NDArray[np.int8]:
    """What the kernel looks weights up in: (ways, TABLE), from the 2**bits numbers that indices stand for."""
    if bits == 8:
        return np.zeros((1, TABLE), np.int8)
    index = np.arange(TABLE)
    ways = [sum((index >> seat & 2**width - 1) << position for width, position, seat in way) for way in SEATS[bits]]
    return np.stack([numbers[way] for way in ways])


def reference(x: NDArray[Any], weight: NDArray[Any], start: NDArray[Any]) -> NDArray[np.int32]:
    """What the kernels compute, in NumPy: x (N, D) u8, weight (H, D) int8, start (H,) int32: (N, H) int32."""
    return (start + x.astype(np.int64) @ weight.astype(np.int64).T).astype(np.int32)


class Tile(NamedTuple):
    """What one kernel multiplies."""

    bits: int
    """Of a weight; negative if they are small."""
    rows: int
    vectors: int
    """Of sums, of a block's VECTORS; as many at a time."""

    @property
    def forms(self) -> range:
        """The forms of a row of codes that it reads."""
        return range(1, FORMS) if PAIRS and self.bits > 0 else range(1)


class Operands(NamedTuple):
    """Addresses of the first row of codes, of a block's weights, of the tables and of the first row of sums; bytes
    between rows, and between the forms of a row of codes; the number of steps."""

    x: ir.Value
    x_stride: ir.Value
    form: ir.Value
    weights: ir.Value
    steps: ir.Value
    table: ir.Value
    sums: ir.Value
    sums_stride: ir.Value


def block(rows: int, vectors: int) -> Callable[..., None]:
    """The kernel of one block: block(bits, *Operands), all int64; bits: of the weights, negative if they are small.

    It adds to the sums (rows, ROWS) int32 the weights' product with the codes, as many as the steps have columns.
    """

    def generate(context: Any, b: ir.IRBuilder, _: Any, arguments: Any) -> ir.Value:
        b.function.attributes.add("noinline")
        b.function.attributes.alignstack = 64  # a vector that finds no register should not lie across two cache lines
        for bits in KINDS:
            with b.if_then(b.icmp_signed("==", arguments[0], ir.I64(bits))):
                _block(b, Tile(bits, rows, vectors), Operands(*arguments[1:]))
        return context.get_dummy_value()

    def typing(
        _: Any,
        bits: Any,
        x: Any,
        x_stride: Any,
        form: Any,
        weights: Any,
        count: Any,
        table: Any,
        sums: Any,
        stride: Any,
    ) -> Any:
        return types.void(*[types.int64] * 9), generate

    return intrinsic(typing)


def _block(b: ir.IRBuilder, tile: Tile, on: Operands) -> None:
    tables = [ir.load(b, ir.offset(b, on.table, way, TABLE), ir.INTEGERS) for way in range(len(SEATS[abs(tile.bits)]))]
    rows = [b.mul(on.x_stride, ir.I64(row)) for row in range(tile.rows)]
    codes = [b.add(on.x, b.add(row, b.mul(on.form, ir.I64(form)))) for row in rows for form in tile.forms]
    sums = [b.add(on.sums, b.mul(on.sums_stride, ir.I64(row))) for row in range(tile.rows)]

    def step(first: int, index: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        at = ir.offset(b, b.add(on.weights, b.mul(index, ir.I64(abs(tile.bits) * PLANE))), first, VECTOR)
        here = [ir.offset(b, row, index, COLUMNS) for row in codes]
        return (_in_pairs if PAIRS else _in_fours)(b, tile, here, Weights(tile.bits, at, tables), totals)

    vectors = range(tile.vectors)
    own = [
        (first, [ir.offset(b, row, first + n, VECTOR) for row in sums for n in vectors])
        for first in range(0, VECTORS, tile.vectors)
    ]

    def parts(index: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        for first, places in own:
            _store(b, step(first, index, _load(b, places)), places)
        return []

    if PAIRS:  # sums are wanted at the end of a step, and weights are read as they lie
        ir.loop(b, on.steps, [], parts)
        return
    for first, places in own:
        _store(b, ir.loop(b, on.steps, _load(b, places), partial(step, first)), places)


def _load(b: ir.IRBuilder, places: list[ir.Value]) -> list[ir.Value]:
    return [ir.load(b, place, ir.INTEGERS) for place in places]


def _store(b: ir.IRBuilder, totals: list[ir.Value], places: list[ir.Value]) -> None:
    for total, place in zip(totals, places, strict=True):
        ir.store(b, total, place)


class Weights(NamedTuple):
    """Those of one step, unpacked where they are wanted."""

    bits: int
    address: ir.Value
    tables: list[ir.Value]

    def of(self, b: ir.IRBuilder, field: int, n: int) -> ir.Value:
        """One field's in vector n: 4 in each lane, int8."""
        parts = FIELDS[abs(self.bits)][field]
        places = [ir.offset(b, self.address, part.plane * VECTORS + n, VECTOR) for part in parts]
        words = [ir.load(b, place, ir.INTEGERS) for place in places]
        if self.bits == 8:
            return words[0]
        table = self.tables[SEATS[abs(self.bits)].index(tuple(part[2:] for part in parts))]
        index, *others = [
            ir.shift_right(b, word, part.shift - part.seat) for word, part in zip(words, parts, strict=True)
        ]
        for word, part in zip(others, parts[1:], strict=True):
            mask = ir.constant(ir.INTEGERS, (2**part.bits - 1 << part.seat) * ir.EACH_BYTE)
            index = b.or_(b.and_(word, mask), b.and_(index, b.not_(mask)))
        return ir.look_up_bytes(b, table, index)


def _splat(b: ir.IRBuilder, codes: ir.Value, field: int) -> ir.Value:
    """Four codes of a row in every lane."""
    return ir.splat(b, ir.load(b, ir.offset(b, codes, field, 4), ir.I32))


def _in_fours(
    b: ir.IRBuilder, tile: Tile, codes: list[ir.Value], weights: Weights, totals: list[ir.Value]
) -> list[ir.Value]:
    """A step that adds four products at once."""
    totals = list(totals)
    for field in range(COLUMNS // 4):
        inputs = [_splat(b, row, field) for row in codes]
        for n in range(tile.vectors):
            own = weights.of(b, field, n)
            for row, each in enumerate(inputs):
                place = row * tile.vectors + n
                totals[place] = ir.dot_u8_s8(b, totals[place], each, own)
    return totals


def _in_pairs(
    b: ir.IRBuilder, tile: Tile, codes: list[ir.Value], weights: Weights, totals: list[ir.Value]
) -> list[ir.Value]:
    """A step that adds up in 16 bits first."""
    narrow: dict[tuple[int, int], ir.Value] = {}
    for field in range(COLUMNS // 4):
        inputs = [_splat(b, each, field) for each in codes]
        for n in range(tile.vectors):
            own = weights.of(b, field, n)
            for number, each in enumerate(inputs):
                product = ir.pairs_u8_s8(b, each, own)
                narrow[number, n] = b.add(narrow[number, n], product) if field else product
    after = []
    for place, total in enumerate(totals):
        row, n = divmod(place, tile.vectors)
        for each, form in enumerate(tile.forms):
            total = b.add(total, ir.sum_pairs(b, narrow[row * len(tile.forms) + each, n], 16 if form == 2 else 1))
        after.append(total)
    return after


one_row, several_rows = block(1, VECTORS), block(HEIGHT, VECTORS // 2)


@compiled()
def spread(codes, width):
    """Put the nibbles of a row's codes (FORMS * width,) u8 behind them, where they are wanted."""
    if FORMS == 3:
        whole, low, high = codes[:width], codes[width : 2 * width], codes[2 * width : 3 * width]
        for j in range(width):
            low[j] = whole[j] & np.uint8(15)
        for j in range(width):
            high[j] = whole[j] >> np.uint8(4)


@compiled(uses=(ir,))
def product(bits, x, weights, count, table, sums, blocks, rows, backwards):
    """Add a matrix's product with some rows to their sums.

    Args, all int64: width of the weights, negative if they are small; address of the rows of codes (u8, zero beyond
    their end, with room for FORMS of them, `spread`) and of the arranged weights; their steps; address of the tables,
    and of the rows of sums (int32, ROWS per block); the number of blocks, and of rows; 1: the last block comes first,
    so that of a matrix too large for the cache the part is taken first that the call before left there. Returns 0.
    """
    form, stride = count * COLUMNS, 4 * ROWS * blocks
    row_bytes, block_bytes = FORMS * form, count * abs(bits) * PLANE
    for number in range(blocks):
        place = blocks - 1 - number if backwards else number
        own, into, row = weights + place * block_bytes, sums + 4 * ROWS * place, 0
        while row + HEIGHT <= rows:
            several_rows(bits, x + row * row_bytes, row_bytes, form, own, count, table, into + row * stride, stride)
            row += HEIGHT
        while row < rows:
            one_row(bits, x + row * row_bytes, row_bytes, form, own, count, table, into + row * stride, stride)
            row += 1
    return 0
