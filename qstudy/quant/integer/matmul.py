"""The real integer matrix product.

Torch's library multiplies where it can and the processor has VNNI, the kernels elsewhere. With AMX they do it for many
rows too: 2,400 x 256 inputs and 1,024 outputs take 0.6 of the library's time on two threads, 0.4 on one.
"""

from functools import cache

import torch
from torch import Tensor

from qstudy.quant.kernels import gemm, products, usable
from qstudy.quant.kernels.ir import AMX, VNNI
from qstudy.threads import on_threads

EXACT_FLOAT32 = 2**24 // 2**14
"""Columns up to which every sum of products of int8 is a whole number that float32 holds, in whatever order."""


def integer_matmul(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply integers exactly.

    Args:
        x: (..., D) int8 or int16.
        weight: (H, D) int8 or int16.

    Returns:
        (..., H) int32 for int8 operands, else float64 that holds exact integers (below 2**53).

    Raises:
        RuntimeError: x and weight differ in D, which not every kernel would notice.
    """
    flat = x.reshape(-1, x.shape[-1]).contiguous()  # torch multiplies rows that share memory wrongly
    if flat.shape[1] != weight.shape[1]:
        raise RuntimeError(f"inputs of size {flat.shape[1]} do not fit a matrix of {weight.shape[1]} columns")
    narrow = x.dtype == weight.dtype == torch.int8
    many = len(flat) > products.GROUP
    if narrow and usable(flat, weight) and ((AMX and many) or not library_takes(flat)):
        product = _by_kernel(flat, weight)
    elif narrow and library_takes(flat):
        product = torch._int_mm(flat, weight.t())
    elif narrow and flat.shape[1] <= EXACT_FLOAT32:
        with torch.autocast(x.device.type, enabled=False):
            product = (flat.float() @ weight.t().float()).int()
    else:
        # 2**15 * 2**15 * D fits the 53 bits of a float64 for every D that a recognizer has.
        product = flat.double() @ weight.t().double()
        product = product.int() if narrow else product
    return product.reshape(*x.shape[:-1], len(weight))


def library_takes(x: Tensor) -> bool:
    """Whether `torch._int_mm` multiplies x (N, D) int8 exactly, and not in a plain loop.

    torch 2.12 multiplies a single column by whatever lies in memory; on GPUs it refuses many shapes; on processors
    without VNNI it takes thirty times as long as in float32.
    """
    return VNNI and x.device.type == "cpu" and x.shape[1] > 1 and _library_is_exact()


@cache
def _library_is_exact() -> bool:
    """Held to instructions before VNNI, the library adds pairs of products in 16 bits, which saturate: tried with the
    largest ones, for the processor's flags do not tell what it is held to."""
    x = torch.tensor([[127], [-128]], dtype=torch.int8, device="cpu").repeat(16, 64)
    return torch.equal(torch._int_mm(x, x.t()), x.int() @ x.int().t())


def _by_kernel(x: Tensor, weight: Tensor) -> Tensor:
    """x (N, D) int8 times weight (H, D) int8 transposed: (N, H) int32."""
    packed = gemm.pack(weight)
    start = torch.zeros(len(packed) * gemm.BLOCK, dtype=torch.int32)
    start[: len(weight)] = weight.sum(1, dtype=torch.int32) * -products.OFFSET
    out = torch.empty(len(x), len(weight), dtype=torch.int32)
    arrays = [each.numpy() for each in (x.contiguous(), packed, start, out)]
    if len(x) <= products.GROUP:
        products.integers(*arrays, 0, 1)
    else:
        on_threads(products.integers, *arrays)
    return out
