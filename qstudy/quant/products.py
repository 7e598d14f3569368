"""The float products of all rows of a batch, N of them: in float32 on the CPU by the kernels, else by torch.

In bfloat16 torch's library is faster than the kernels; codes of up to 8 bits are exact in it. In float32 it is so on
Intel's processors alone, whose maker wrote it: elsewhere it takes twice as long. Products are in the rows' dtype.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qstudy.quant.kernels import gemm, products, usable
from qstudy.quant.rounding import mask
from qstudy.threads import on_threads

CPU_INFO = Path("/proc/cpuinfo")


@cache
def library_is_faster() -> bool:
    """Whether torch's library (MKL) multiplies float32 faster than the kernels: 1.3 times or more, at home."""
    return torch.backends.mkl.is_available() and CPU_INFO.is_file() and "GenuineIntel" in CPU_INFO.read_text()


def by_kernel(*tensors: Tensor) -> bool:
    """Whether the kernels multiply these tensors."""
    return usable(*tensors) and not library_is_faster()


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (N, D) float32 times weight (H, D) transposed, plus bias (H,): (N, H)."""
    if not by_kernel(x, weight, bias) or x.shape[1] != weight.shape[1]:  # the kernel would not notice, torch says so
        return torch.addmm(bias, x, weight.t())
    out = torch.empty(len(x), len(weight))
    operands = (x.contiguous(), gemm.pack(weight), bias.contiguous(), out)
    on_threads(products.affine, *(each.detach().numpy() for each in operands))
    return out


def input_gradient(rows: Tensor, values: Tensor, inside: Tensor | None) -> Tensor:
    """rows (N, H) times values (H, D), zero where x was clipped, if `inside` (N, D) says so: (N, D) float32."""
    if not by_kernel(rows, values):
        product = (rows @ values.to(rows.dtype)).float()
        return product if inside is None else mask(product, inside)
    out = torch.empty(len(rows), values.shape[1])
    passes = torch.empty((0, 0), dtype=torch.bool) if inside is None else inside.contiguous()
    operands = (rows.contiguous(), gemm.pack(values.t()), passes, out)
    on_threads(products.input_gradient, *(each.detach().numpy() for each in operands))
    return out


def weight_gradient(rows: Tensor, x: Tensor, scale: Tensor | None = None, zero_point: Tensor | None = None) -> Tensor:
    """rows (N, H) transposed, times (x - zero_point) * scale, x (..., D) float32 or integers: (H, D) float32."""
    x = x.reshape(len(rows), x.shape[-1])
    if not by_kernel(rows, x):
        whole = x if zero_point is None else x.float() - zero_point
        product = (rows.t() @ whole.to(rows.dtype)).float()
        return product if scale is None else product.mul_(scale)
    columns = x.shape[1]
    out = torch.empty(rows.shape[1], columns + -columns % gemm.BLOCK)
    qparams = np.float32(1 if scale is None else scale), np.float32(0 if zero_point is None else zero_point)
    arrays = (each.detach().numpy() for each in (rows.contiguous(), x.contiguous()))
    on_threads(products.weight_gradient, *arrays, *qparams, out.numpy())
    return out[:, :columns]


def bias_gradient(rows: Tensor) -> Tensor:
    """The sum of rows (N, H): (H,) float32."""
    return rows.sum(0, dtype=torch.float32)
