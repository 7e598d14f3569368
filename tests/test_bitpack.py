"""Bit packing: there and back, in exactly the bytes that were promised."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qstudy.quant.packed.bitpack import pack, packed_bytes, unpack

WIDTHS = [2, 3, 4, 5, 6, 7, 8, 16]
PACKED = st.sampled_from(WIDTHS)
SIZES = st.tuples(st.integers(0, 9), st.integers(1, 11))


def codes_of(bits: int, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    values = np.random.default_rng(seed).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape)
    return torch.from_numpy(values.astype(np.int8 if bits <= 8 else np.int16))


@given(PACKED, SIZES, st.integers(0, 2**32 - 1))
def test_round_trip(bits: int, shape: tuple[int, int], seed: int) -> None:
    codes = codes_of(bits, shape, seed)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == packed_bytes(codes.numel(), bits)
    again = unpack(packed, bits, shape)
    assert again.dtype == codes.dtype
    assert torch.equal(again, codes)


@pytest.mark.parametrize("bits", WIDTHS)
def test_extremes(bits: int) -> None:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    codes = torch.tensor([low, high, 0, -1, 1, low, high], dtype=torch.int16)
    assert unpack(pack(codes, bits), bits, (7,)).tolist() == codes.tolist()


def test_layout() -> None:
    """Least significant bit first, two's complement: three 3-bit integers 1, -1, -4 are 001, 111, 100."""
    assert pack(torch.tensor([1, -1, -4], dtype=torch.int8), 3).tolist() == [0b00111001, 0b1]
    assert pack(torch.tensor([258, -2], dtype=torch.int16), 16).tolist() == [2, 1, 254, 255]


@given(PACKED, st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_any_bytes_unpack_to_what_packs_to_them(bits: int, count: int, seed: int) -> None:
    spare = packed_bytes(count, bits) * 8 - count * bits
    raw = np.random.default_rng(seed).integers(0, 256, packed_bytes(count, bits)).astype(np.uint8)
    raw[-1] &= 0xFF >> spare  # the last byte's unused bits are zero
    packed = torch.from_numpy(raw)
    assert torch.equal(pack(unpack(packed, bits, (count,)), bits), packed)
