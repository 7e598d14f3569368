"""The real integer matrix product."""

import torch
from torch import Tensor

EXACT_FLOAT32 = 2**24 // 2**14
"""Columns up to which every sum of products of int8 is a whole number that float32 holds, in whatever order."""


def integer_matmul(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply integers exactly.

    Args:
        x: (..., D) int8 or int16.
        weight: (H, D) int8 or int16.

    Returns:
        (..., H) int32 for int8 operands, else float64 that holds exact integers (below 2**53).
    """
    flat = x.reshape(-1, x.shape[-1])
    narrow = x.dtype == weight.dtype == torch.int8
    if narrow and served(flat):
        product = torch._int_mm(flat, weight.t())
    elif narrow and flat.shape[1] <= EXACT_FLOAT32:
        with torch.autocast(x.device.type, enabled=False):
            product = (flat.float() @ weight.t().float()).int()
    else:
        # 2**15 * 2**15 * D fits the 53 bits of a float64 for every D that a recognizer has.
        product = flat.double() @ weight.t().double()
        product = product.int() if narrow else product
    return product.reshape(*x.shape[:-1], len(weight))


def served(x: Tensor) -> bool:
    """Whether `torch._int_mm` multiplies x (N, D) int8 exactly.

    torch 2.12 multiplies a single column by whatever lies in memory; without VNNI its library adds pairs of products
    in 16 bits, which saturate; on GPUs it refuses many shapes.
    """
    return x.device.type == "cpu" and x.shape[1] > 1 and torch.cpu._is_vnni_supported()
