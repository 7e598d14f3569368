"""The float products around an LSTM's time loop: by the kernels on the CPU, else by torch.

Rows are all frames of a batch, N = T * B. `gradient` is the dtype in which a backward pass multiplies.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from qstudy.jit import on_threads
from qstudy.quant.kernels import gemm, ir, products, usable


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (N, D) float32 times weight (H, D) transposed, plus bias (H,): (N, H)."""
    if not usable(x, weight, bias):
        return torch.addmm(bias, x, weight.t())
    out = torch.empty(len(x), len(weight))
    operands = (x.contiguous(), gemm.pack(weight), bias.contiguous(), out)
    on_threads(products.affine, *(each.detach().numpy() for each in operands))
    return out


def input_gradient(rows: Tensor, values: Tensor, inside: Tensor | None, gradient: torch.dtype) -> Tensor:
    """rows (N, H) times values (H, D), zero where x was clipped, if `inside` (N, D) says so: (N, D) float32."""
    rows = rows.to(gradient)
    if not _supported(rows, values):
        product = (rows @ values.to(gradient)).float()
        return product if inside is None else product.mul_(inside)
    weight = gemm.pack(values.t().to(gradient))
    out = torch.empty(len(rows), values.shape[1])
    passes = torch.empty((0, 0), dtype=torch.bool) if inside is None else inside.contiguous()
    if rows.shape[1] % gemm.PER_WORD[rows.dtype]:
        rows = F.pad(rows, (0, 1))
    operands = (bits(rows.contiguous()), bits(weight), passes, out)
    on_threads(products.input_gradient, *(each.detach().numpy() for each in operands))
    return out


def weight_gradient(
    rows: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, gradient: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Gradients of a weight and of the bias.

    Args:
        rows: (N, H) float32 or bfloat16.
        x: what the weight was multiplied by, (..., D) float32 or integers.
        scale: () float32.
        zero_point: () float32.
        gradient: float32 or bfloat16; whole numbers below 256 are exact in both.

    Returns:
        Transposed rows times (x - zero_point) * scale, (H, D) float32; the rows' sum (H,) float32.
    """
    rows, x = rows.to(gradient), x.reshape(len(rows), -1)
    if not _supported(rows, x):
        whole = (x.float() - zero_point).to(gradient)
        return (rows.t() @ whole).float().mul_(scale), rows.sum(0, dtype=torch.float32)
    columns = x.shape[1]
    out = torch.empty(rows.shape[1], columns + -columns % gemm.BLOCK)
    bias = torch.empty(rows.shape[1])
    operands = (bits(rows.contiguous()), x.contiguous())
    qparams = (np.float32(scale), np.float32(zero_point))
    arrays = (each.detach().numpy() for each in operands)
    on_threads(products.weight_gradient, *arrays, *qparams, out.numpy(), bias.numpy())
    return out[:, :columns], bias


def bits(tensor: Tensor) -> Tensor:
    """Floats as integers of the same size, in the same memory: NumPy has no bfloat16."""
    if tensor.dtype == torch.int32:
        return tensor
    return tensor.view(torch.int16 if tensor.dtype == torch.bfloat16 else torch.int32)


def _supported(rows: Tensor, other: Tensor) -> bool:
    """Whether the kernels take both, and the processor multiplies the rows' dtype."""
    if rows.dtype == torch.bfloat16:
        return ir.BF16 and usable(rows.view(torch.int16)[:0].int(), other)
    return usable(rows, other)
