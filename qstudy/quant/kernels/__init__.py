"""Loops for the CPU: numba functions whose innermost products are written in LLVM's own language.

`ir` holds the pieces, `gemm` and `gemv` the products, `tiles` those of `gemm` where a processor has AMX, `cell` the
arithmetic of one frame of an LSTM, `recurrence` the loops over time, `products` what surrounds them, `codes` the way to
integers. Each says what a processor must offer and names its twin in plain NumPy; tests hold one against the other to
the bit, as this processor, as one with AVX2 and as one without any vector instruction. QSTUDY_PORTABLE=1 does without
all of them: torch multiplies and loops over time.
"""

import os

import torch
from torch import Tensor

SWITCH = "QSTUDY_PORTABLE"


def switched_off() -> bool:
    """Whether the environment variable QSTUDY_PORTABLE=1 wants torch's own products and time loops, as on a GPU."""
    return os.environ.get(SWITCH, "0") not in ("", "0")


def usable(*tensors: Tensor) -> bool:
    """Whether the loops here can take these tensors: on the CPU, float32 or integers of 8 and 32 bits."""
    if switched_off():
        return False
    types = (torch.float32, torch.int8, torch.uint8, torch.int32)
    return all(tensor.device.type == "cpu" and tensor.dtype in types for tensor in tensors)
