"""Bit packing: integers of 2 to 8 bits, side by side in bytes, least significant bit first."""

import numpy as np
import torch
from torch import Tensor


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that `count` integers of `bits` bits need."""
    return -(-count * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack signed integers.

    Args:
        codes: int8 or int16, any shape, within `bits` bits.
        bits: 2 to 8, or 16.

    Returns:
        uint8 (packed_bytes(count, bits),): two's complement of each integer, `bits` bits each, in row-major order.
    """
    values = codes.detach().cpu().numpy().astype("<i2").reshape(-1)
    if bits == 16:
        return torch.from_numpy(values.view(np.uint8).copy())
    every = np.unpackbits(values.astype(np.int8).view(np.uint8)[:, None], axis=1, bitorder="little")
    return torch.from_numpy(np.packbits(every[:, :bits].reshape(-1), bitorder="little"))


def unpack(packed: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The inverse of `pack`: int8 (int16 for 16 bits) of the given shape."""
    raw = packed.detach().cpu().numpy()
    count = int(np.prod(shape))
    if bits == 16:
        return torch.from_numpy(raw.view("<i2").astype(np.int16)).reshape(shape)
    every = np.zeros((count, 8), np.uint8)
    every[:, :bits] = np.unpackbits(raw, count=count * bits, bitorder="little").reshape(count, bits)
    every[:, bits:] = every[:, bits - 1 : bits]  # sign extension
    return torch.from_numpy(np.packbits(every, axis=1, bitorder="little")[:, 0].view(np.int8).copy()).reshape(shape)
