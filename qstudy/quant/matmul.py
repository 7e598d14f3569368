"""The real integer matrix product."""

import torch
from torch import Tensor


def integer_matmul(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply integers exactly.

    Args:
        x: (..., D) int8 or int16.
        weight: (H, D) int8 or int16.

    Returns:
        (..., H) int32 for int8 operands, else float64 that holds exact integers (below 2**53).
    """
    flat = x.reshape(-1, x.shape[-1])
    wide = flat.shape[1] > 1  # torch 2.12 multiplies one column by whatever lies in memory
    if x.dtype == weight.dtype == torch.int8 and wide and not x.is_cuda:
        product = torch._int_mm(flat, weight.t())
    else:
        # 2**15 * 2**15 * D fits the 53 bits of a float64 for every D that a recognizer has.
        product = flat.double() @ weight.t().double()
    return product.reshape(*x.shape[:-1], len(weight))
