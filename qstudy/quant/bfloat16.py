"""Whether a device computes in bfloat16, and whether that is worth it."""

import logging
from functools import cache

import torch
from torch import nn

from qstudy.quant.kernels.ir import FEATURES


@cache
def computes(kind: str) -> bool:
    """Whether an LSTM can be trained under bfloat16 autocast on a kind of device (`cpu`, `cuda`), however slowly."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported()
    return kind == "cpu" and _lstm_trains()


@cache
def multiplies(kind: str) -> bool:
    """Whether the device multiplies bfloat16 itself: elsewhere each product is emulated, slower than in float32.

    On a processor both are asked for. The instruction, because oneDNN emulates it on any AVX-512 (2.6 times slower than
    float32); a trial, because oneDNN may be held to older instructions than the processor has, and then has no LSTM.
    """
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return not FEATURES.isdisjoint({"avx512bf16", "amx-bf16"}) and computes(kind)


def gradient_dtype(asked: torch.dtype, device: torch.device) -> torch.dtype:
    """In which type a backward pass multiplies: float32 instead of bfloat16 where that would be emulated."""
    if asked != torch.bfloat16 or multiplies(device.type):
        return asked
    _warn_emulated(device.type)
    return torch.float32


@cache
def _warn_emulated(kind: str) -> None:
    """Once in a process."""
    logging.getLogger(__name__).warning(
        "gradient: bfloat16 would be emulated on this device (%s), several times slower than float32: the backward"
        " pass multiplies in float32.",
        kind,
    )


def _lstm_trains() -> bool:
    """Forward and backward of one tiny LSTM on the processor; leaves the random numbers to come alone."""
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        lstm = nn.LSTM(8, 8, device="cpu")
        try:
            with torch.autocast("cpu", torch.bfloat16):
                outputs = lstm(torch.zeros(2, 1, 8, device="cpu"))[0]
            outputs.float().sum().backward()
        except RuntimeError:  # oneDNN: could not create a primitive
            return False
    return True
