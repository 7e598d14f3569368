"""The LSTM recurrence's time loops on the CPU: torch's tensors to the numba functions of `kernels.recurrence`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qstudy.quant.integer.accumulator import QParams, record, recording
from qstudy.quant.kernels import gemm, ir, recurrence
from qstudy.threads import on_threads


def float_trace(
    inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, scale: Tensor, high: int, reuse: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `recurrence.float_trace`: gates, cells, fake-quantized hidden states, outputs."""
    frames, batch, size = inputs.shape
    inputs = inputs.contiguous()
    gates = inputs if reuse else torch.empty(frames, batch, size)
    cells, quantized = torch.empty(2, frames + 1, batch, size // 4)
    outputs = torch.empty(frames, batch, size // 4)
    cells[0] = c
    quantized[0] = (h / scale).round_().clamp_(-high, high).mul_(scale)
    trace = (gates, cells, quantized, outputs)
    quantizer = (np.float32(scale), np.float32(high))
    operands = (inputs, gemm.pack(weight))
    _run(recurrence.float_forward, batch, *_arrays(*operands), *quantizer, *_arrays(*trace))
    return trace


def integer_trace(
    accumulators: Tensor,
    first: Tensor,
    c: Tensor,
    codes: Tensor,
    scales: tuple[Tensor, Tensor],
    bias: Tensor,
    qparams: QParams,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `recurrence.integer_trace`: gates, in the memory of the accumulators, cells, hidden codes, outputs."""
    frames, batch, size = accumulators.shape
    accumulators = accumulators.contiguous()
    gates = accumulators.view(torch.float32)  # each row is read before it is written
    cells, outputs = torch.empty(frames + 1, batch, size // 4), torch.empty(frames, batch, size // 4)
    hidden = torch.empty(frames + 1, batch, size // 4, dtype=torch.int8)
    cells[0], hidden[0] = c, first
    products = torch.empty((frames if recording() else 0, batch, size), dtype=torch.int32)
    packed = gemm.pack(codes)
    start = torch.zeros(len(packed) * gemm.BLOCK, dtype=torch.int32)
    start[:size] = codes.sum(1, dtype=torch.int32) * -recurrence.ZERO_CODE
    scales_and_bias = (*(scale.expand(size).contiguous() for scale in scales), bias.contiguous())
    quantizer = (np.float32(qparams.scale), np.float32(qparams.bounds()[1]))
    trace = (gates, cells, hidden, outputs)
    operands = _arrays(accumulators, packed, start, *scales_and_bias)
    _run(recurrence.integer_forward, batch, *operands, *quantizer, *_arrays(*trace, products))
    if recording():
        record(products)
    return trace


def trace_gradients(
    gates: Tensor,
    cells: Tensor,
    weight: Tensor,
    upstream: tuple[Tensor, Tensor, Tensor],
    gradient: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `recurrence.trace_gradients`; the gates' gradient is bfloat16 if the products are."""
    grad_outputs, grad_h, grad_c = (each.float() for each in upstream)
    grad_h, grad_c = grad_h.clone(), grad_c.clone()
    narrow = gradient == torch.bfloat16 and ir.BF16
    grad_gates = torch.empty(gates.shape, dtype=torch.bfloat16 if narrow else torch.float32)
    packed = gemm.pack(weight.t().to(grad_gates.dtype))
    arrays = _arrays(gates, cells, bits(packed), grad_outputs.contiguous(), grad_h, grad_c, bits(grad_gates))
    _run(recurrence.backward, gates.shape[1], *arrays)
    return grad_gates, grad_h, grad_c


def bits(tensor: Tensor) -> Tensor:
    """Floats as integers of the same size, in the same memory: NumPy has no bfloat16."""
    if tensor.dtype == torch.int32:
        return tensor
    return tensor.view(torch.int16 if tensor.dtype == torch.bfloat16 else torch.int32)


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().numpy() for tensor in tensors]


def _run(kernel: Callable[..., None], batch: int, *arguments: Any) -> None:
    """Over torch's threads, unless there is but one row."""
    if batch == 1:
        kernel(*arguments, 0, 1)
    else:
        on_threads(kernel, *arguments)
