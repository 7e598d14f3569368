"""Pieces of micro-kernels in LLVM-IR, for numba's `@intrinsic`: what the processor offers and numba cannot say.

A piece takes the builder first and emits code where it stands. Addresses are int64; vectors have LANES lanes of 32
bits: 16 where there is AVX-512 (F and BW), else 8, which LLVM cuts into what the processor has (AVX2, SSE, NEON).

What a processor must offer: nothing for `dot_u8_s8` and `multiply_add`, where plain vector operations give the same
integers; AVX2 for `pairs_u8_s8`, `sum_pairs` and `look_up_bytes`, BF16 for `dot_bf16`: who calls these asks FEATURES,
WIDE, VNNI or BF16 first. The twins are those of the kernels that are made of the pieces (`gemm`, `gemv`).
"""

import ctypes
import platform
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding
from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba.core import cgutils
from numba.core.registry import cpu_target

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32 = ir.FloatType()


def _features() -> frozenset[str]:
    """What numba compiles for, which is the machine itself unless the user's environment says otherwise."""
    text = cpu_target.target_context.codegen().magic_tuple()[2]
    return frozenset(name[1:] for name in text.split(",") if name.startswith("+"))


FEATURES = _features()
WIDE = {"avx512f", "avx512bw"} <= FEATURES
LANES = 16 if WIDE else 8
VNNI = "avx512vnni" in FEATURES if WIDE else "avxvnni" in FEATURES
BF16 = WIDE and "avx512bf16" in FEATURES
ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA = 158, 0x1023, 18  # Linux on x86-64: arch_prctl(2)


def _permitted() -> bool:
    """Ask the kernel for the tiles' registers: it gives them to processes that ask, if they are there at all."""
    if platform.system() != "Linux":
        return False
    return ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST_PERMISSION, ctypes.c_long(TILE_DATA)) == 0


AMX = WIDE and {"amx-tile", "amx-int8", "amx-bf16"} <= FEATURES and _permitted()
MACHINE = AMX
"""What code on disk depends on beside numba's features: whether the kernel gave permission."""

LOOKS_UP_ALL = "llvm.x86.avx512.permvar.qi.512" if WIDE and "avx512vbmi" in FEATURES else ""
"""LLVM's name of `vpermb`, which looks up in a whole vector, by the low six bits of an index."""
EACH_BYTE = 0x01010101

FLOATS, INTEGERS = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
BYTES = ir.VectorType(I8, 4 * LANES)
HALVES = ir.VectorType(I16, 2 * LANES)


def function(b: IRBuilder, name: str, result: ir.Type, arguments: Sequence[ir.Type]) -> Value:
    """One of LLVM's intrinsics."""
    return cgutils.get_or_insert_function(b.module, ir.FunctionType(result, arguments), name)


def load(b: IRBuilder, address: Value, kind: ir.Type) -> Value:
    """What lies at an address that need not be aligned."""
    value = b.load(b.inttoptr(address, kind.as_pointer()))
    value.align = 1
    return value


def store(b: IRBuilder, value: Value, address: Value) -> None:
    """Write to an address that need not be aligned."""
    b.store(value, b.inttoptr(address, value.type.as_pointer())).align = 1


def constant(kind: ir.VectorType, value: float) -> Value:
    """The same number in every lane."""
    return ir.Constant(kind, [value] * kind.count)


def zeros(kind: ir.VectorType) -> Value:
    """Zero in every lane."""
    return ir.Constant(kind, None)


def splat(b: IRBuilder, scalar: Value) -> Value:
    """A scalar in every lane."""
    kind = ir.VectorType(scalar.type, LANES)
    first = b.insert_element(ir.Constant(kind, ir.Undefined), scalar, I32(0))
    return b.shuffle_vector(first, ir.Constant(kind, ir.Undefined), ir.Constant(INTEGERS, [0] * LANES))


def offset(b: IRBuilder, address: Value, count: Value | int, size: int) -> Value:
    """The address `count` items of `size` bytes further on."""
    step = I64(count * size) if isinstance(count, int) else b.mul(count, I64(size))
    return b.add(address, step)


def multiply_add(b: IRBuilder, x: Value, y: Value, total: Value) -> Value:
    """total + x * y, float32; rounded once where the processor has the instruction: elsewhere that would be a call."""
    name = f"llvm.fmuladd.v{LANES}f32"
    return b.call(function(b, name, FLOATS, [FLOATS] * 3), [x, y, total])


def dot_u8_s8(b: IRBuilder, total: Value, x: Value, y: Value) -> Value:
    """total + the four products of unsigned bytes of x with signed bytes of y, per lane, exact in int32."""
    if not VNNI:
        return b.add(total, b.add(_even_products(b, x, y, 0), _even_products(b, x, y, 8)))
    name = f"llvm.x86.avx512.vpdpbusd.{32 * LANES}"
    if llvmlite.binding.llvm_version_info[0] >= 22:  # from then on its operands are vectors of bytes
        operands = [total, b.bitcast(x, BYTES), b.bitcast(y, BYTES)]
    else:
        operands = [total, x, y]
    return b.call(function(b, name, INTEGERS, [each.type for each in operands]), operands)


def _even_products(b: IRBuilder, x: Value, y: Value, shift: int) -> Value:
    """The products of bytes 0 and 2 of each lane (shift 0), or of 1 and 3 (shift 8), added up."""
    x, y = b.bitcast(x, HALVES), b.bitcast(y, HALVES)
    if shift:
        x = b.lshr(x, constant(HALVES, 8))
    else:
        x, y = b.and_(x, constant(HALVES, 255)), b.shl(y, constant(HALVES, 8))
    y = b.ashr(y, constant(HALVES, 8))
    wide = ir.VectorType(I32, 2 * LANES)
    products = b.mul(b.zext(x, wide), b.sext(y, wide))
    undefined = ir.Constant(wide, ir.Undefined)
    halves = [
        b.shuffle_vector(products, undefined, ir.Constant(INTEGERS, list(range(first, 2 * LANES, 2))))
        for first in (0, 1)
    ]
    return b.add(*halves)


def pairs_u8_s8(b: IRBuilder, x: Value, y: Value) -> Value:
    """Of each two neighbours, the products of unsigned bytes of x with signed ones of y, added up: int16, saturated.

    There must be AVX2.
    """
    name = "llvm.x86.avx512.pmaddubs.w.512" if WIDE else "llvm.x86.avx2.pmadd.ub.sw"
    return b.call(function(b, name, HALVES, [BYTES] * 2), [b.bitcast(x, BYTES), b.bitcast(y, BYTES)])


def sum_pairs(b: IRBuilder, x: Value, factor: int) -> Value:
    """The sums of each two neighbours of x, int16, times a factor: int32. There must be AVX2."""
    name = "llvm.x86.avx512.pmaddw.d.512" if WIDE else "llvm.x86.avx2.pmadd.wd"
    return b.call(function(b, name, INTEGERS, [HALVES] * 2), [x, constant(HALVES, factor)])


def dot_bf16(b: IRBuilder, total: Value, x: Value, y: Value) -> Value:
    """total + the two products of bfloat16 in each lane, float32; only where BF16 holds."""
    kind = ir.VectorType(_bfloat(), 2 * LANES)
    operands = [total, b.bitcast(x, kind), b.bitcast(y, kind)]
    name = "llvm.x86.avx512bf16.dpbf16ps.512"
    return b.call(function(b, name, FLOATS, [each.type for each in operands]), operands)


class _BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


def _bfloat() -> ir.Type:
    return getattr(ir.types, "BFloatType", _BFloat)()


def shift_right(b: IRBuilder, x: Value, bits: int) -> Value:
    """The lanes of x, int32; to the left where bits is negative."""
    return (b.lshr if bits > 0 else b.shl)(x, constant(INTEGERS, abs(bits)))


def look_up_bytes(b: IRBuilder, table: Value, indices: Value) -> Value:
    """Bytes of a table, 16 bytes over and over, at the low 4 bits of each byte of indices, whatever the others are.

    Both are vectors of LANES lanes, and so is the result. There must be AVX2.
    """
    if LOOKS_UP_ALL:
        name, operands = LOOKS_UP_ALL, [table, indices]
    else:
        name = "llvm.x86.avx512.pshuf.b.512" if WIDE else "llvm.x86.avx2.pshuf.b"
        operands = [table, b.and_(indices, constant(INTEGERS, 15 * EACH_BYTE))]
    found = b.call(function(b, name, BYTES, [BYTES] * 2), [b.bitcast(each, BYTES) for each in operands])
    return b.bitcast(found, INTEGERS)


def loop(
    b: IRBuilder, count: Value, initial: Sequence[Value], body: Callable[[Value, list[Any]], Sequence[Value]]
) -> list[Value]:
    """Run body(index, values) `count` times, int64; the values of one turn are those that the turn before returned."""
    entry = b.block
    head, inside, done = (b.append_basic_block(name) for name in ("head", "inside", "done"))
    b.branch(head)
    b.position_at_end(head)
    index = b.phi(I64)
    values = [b.phi(value.type) for value in initial]
    for phi, value in zip([index, *values], [I64(0), *initial], strict=True):
        phi.add_incoming(value, entry)
    b.cbranch(b.icmp_signed("<", index, count), inside, done)
    b.position_at_end(inside)
    after = [b.add(index, I64(1)), *body(index, values)]
    for phi, value in zip([index, *values], after, strict=True):
        phi.add_incoming(value, b.block)
    b.branch(head)
    b.position_at_end(done)
    return values
