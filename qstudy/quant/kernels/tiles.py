"""The products of `gemm` by AMX: tiles multiply sixteen rows by sixteen outputs at once, of int8 or of bfloat16.

A tile is a register of up to 16 rows of 64 bytes. Those of weights are what `gemm.pack` made, as it lies: sixteen words
along the depth, one vector of outputs wide. Two tiles of sums stand side by side, as wide as a block; of more than
sixteen rows, two more below them use the same weights. A call lays the tiles out anew and gives them back at its end:
oneDNN looks what it finds before it multiplies.

What a processor must offer: AMX for int8 and bfloat16, and a kernel that lets this process use it (`ir.AMX`). Twin:
`gemm.reference`, equal to the bit for integers, and for sums of bfloat16 that are whole numbers.
"""

from collections.abc import Sequence

from llvmlite.ir import ArrayType, IRBuilder, Value, VoidType
from numba.core import cgutils

from qstudy.quant.kernels import ir

WORDS = 16
"""Along the depth, of a tile: the depth must be a multiple of it."""
ROWS = 16
ROW_BYTES = 64
BLOCK_BYTES = 2 * ROW_BYTES
PALETTE = 1
COLUMN_BYTES, ROW_COUNTS = 16, 48
"""Where a layout tells the bytes of each tile's rows (int16), and their number (int8); byte 0 is the palette."""
SUMS, INPUTS, WEIGHTS = ((0, 1), (2, 3)), (4, 5), (6, 7)
"""Numbers of the tiles; those of sums by row and column."""
MULTIPLY = {"s8": "llvm.x86.tdpbusd", "bf16": "llvm.x86.tdpbf16ps"}


def multiply(b: IRBuilder, kind: str, arguments: Sequence[Value]) -> None:
    """The product of `gemm.product` with its arguments, for depths that are multiples of WORDS."""
    x, x_stride, weight, depth, start, start_stride, out, out_stride, blocks, rows = arguments
    layout = cgutils.alloca_once(b, ArrayType(ir.I8, 64))
    steps = b.sdiv(depth, ir.I64(WORDS))

    def strip(number: Value, _: list[Value]) -> list[Value]:
        first = b.mul(number, ir.I64(2 * ROWS))
        left = b.sub(rows, first)
        inputs, begin, end = (
            (b.add(address, b.mul(first, stride)), stride)
            for address, stride in ((x, x_stride), (start, start_stride), (out, out_stride))
        )

        def run(height: int) -> None:
            _lay_out(b, layout, [_at_most(b, b.sub(left, ir.I64(ROWS * n)), ROWS) for n in range(height)])

            def block(index: Value, _: list[Value]) -> list[Value]:
                at = b.add(weight, b.mul(b.mul(index, depth), ir.I64(BLOCK_BYTES)))
                sums = ((ir.offset(b, address, index, BLOCK_BYTES), stride) for address, stride in (begin, end))
                _multiply(b, kind, height, inputs, (at, ir.I64(BLOCK_BYTES)), steps, *sums)
                return []

            ir.loop(b, blocks, [], block)

        with b.if_else(b.icmp_signed("<=", left, ir.I64(ROWS))) as (low, high):
            with low:
                run(1)
            with high:
                run(2)
        return []

    ir.loop(b, b.sdiv(b.add(rows, ir.I64(2 * ROWS - 1)), ir.I64(2 * ROWS)), [], strip)
    _call(b, "llvm.x86.tilerelease", [])


Place = tuple[Value, Value]
"""Address of a matrix's first row and its stride in bytes."""


def _multiply(
    b: IRBuilder, kind: str, height: int, x: Place, weight: Place, steps: Value, start: Place, out: Place
) -> None:
    """One block of outputs for the rows of `height` tiles."""
    places = [(SUMS[row][column], row, ROW_BYTES * column) for row in range(height) for column in range(2)]
    for tile, row, column in places:
        _load(b, tile, _below(b, start, row, column))

    def step(index: Value, _: list[Value]) -> list[Value]:
        for row in range(height):
            _load(b, INPUTS[row], _below(b, (ir.offset(b, x[0], index, ROW_BYTES), x[1]), row, 0))
        words = b.add(weight[0], b.mul(b.mul(index, ir.I64(WORDS)), weight[1]))
        for column in range(2):
            _load(b, WEIGHTS[column], (b.add(words, ir.I64(ROW_BYTES * column)), weight[1]))
            for row in range(height):
                _call(b, MULTIPLY[kind], [ir.I8(n) for n in (SUMS[row][column], INPUTS[row], WEIGHTS[column])])
        return []

    ir.loop(b, steps, [], step)
    for tile, row, column in places:
        address, stride = _below(b, out, row, column)
        _call(b, "llvm.x86.tilestored64", [ir.I8(tile), _pointer(b, address), stride])


def _below(b: IRBuilder, place: Place, row: int, column: int) -> Place:
    """The tile that stands `row` tiles below and `column` bytes to the right."""
    address, stride = place
    return b.add(b.add(address, b.mul(stride, ir.I64(ROWS * row))), ir.I64(column)), stride


def _lay_out(b: IRBuilder, layout: Value, heights: Sequence[Value]) -> None:
    """Give the tiles their sizes: those of sums and inputs have as many rows as there are, at most sixteen."""
    address = b.ptrtoint(layout, ir.I64)
    for offset in range(0, 64, 8):
        ir.store(b, ir.I64(PALETTE if offset == 0 else 0), b.add(address, ir.I64(offset)))
    rows = dict.fromkeys(WEIGHTS, ir.I64(ROWS))
    for height, sums, inputs in zip(heights, SUMS, INPUTS, strict=False):
        rows |= dict.fromkeys((*sums, inputs), height)
    for tile, count in rows.items():
        ir.store(b, ir.I16(ROW_BYTES), b.add(address, ir.I64(COLUMN_BYTES + 2 * tile)))
        ir.store(b, b.trunc(count, ir.I8), b.add(address, ir.I64(ROW_COUNTS + tile)))
    _call(b, "llvm.x86.ldtilecfg", [_pointer(b, address)])


def _load(b: IRBuilder, tile: int, place: Place) -> None:
    _call(b, "llvm.x86.tileloadd64", [ir.I8(tile), _pointer(b, place[0]), place[1]])


def _at_most(b: IRBuilder, value: Value, most: int) -> Value:
    return b.select(b.icmp_signed("<", value, ir.I64(most)), value, ir.I64(most))


def _pointer(b: IRBuilder, address: Value) -> Value:
    return b.inttoptr(address, ir.I8.as_pointer())


def _call(b: IRBuilder, name: str, arguments: Sequence[Value]) -> None:
    """One of LLVM's intrinsics that return nothing; numbers of tiles are part of the instruction."""
    b.call(ir.function(b, name, VoidType(), [each.type for each in arguments]), list(arguments))
