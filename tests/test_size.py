"""The size model against bytes that are really packed."""

import numpy as np
import pytest

from qstudy.bits import LayerBits, LayerShape
from qstudy.hardware.size import layer_bytes, size_bytes

LSTM = LayerShape("encoder.lstm.0", "lstm", ((12, 5), (12, 3)), vectors=12, activations=2, every_ms=30.0)


def packed(rows: int, columns: int, bits: int) -> bytes:
    """Pack a matrix of integers of `bits` bits, as tightly as bytes allow."""
    codes = np.random.default_rng(0).integers(0, 2**bits, (rows, columns))
    spread = (codes.reshape(-1, 1) >> np.arange(bits)) & 1
    return np.packbits(spread.astype(np.uint8)).tobytes()


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8, 16])
def test_channel_scales(bits: int) -> None:
    stored = [packed(rows, columns, bits) + np.zeros(rows, np.float32).tobytes() for rows, columns in LSTM.matrices]
    biases = np.zeros(LSTM.vectors, np.float32).tobytes()
    assert layer_bytes(LSTM, LayerBits(weight=bits)) == len(b"".join(stored) + biases)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_tensor_scale_and_codebook(bits: int) -> None:
    plain = sum(len(packed(rows, columns, bits)) for rows, columns in LSTM.matrices) + 4 * LSTM.vectors
    assert layer_bytes(LSTM, LayerBits(weight=bits, granularity="tensor")) == plain + 2 * 4
    assert layer_bytes(LSTM, LayerBits(weight=bits, quantizer="codebook")) == plain + 2 * (4 + 2**bits)


@pytest.mark.parametrize(("group", "scales"), [(1, 12 * (5 + 3)), (2, 12 * (3 + 2)), (3, 12 * (2 + 1)), (64, 12 * 2)])
def test_group_scales(group: int, scales: int) -> None:
    plain = sum(len(packed(rows, columns, 4)) for rows, columns in LSTM.matrices) + 4 * LSTM.vectors
    assert layer_bytes(LSTM, LayerBits(weight=4, granularity="group", group=group)) == plain + 4 * scales


def test_float_has_no_scales_and_activation_quantizers_cost_eight_bytes() -> None:
    assert layer_bytes(LSTM, LayerBits()) == 4 * LSTM.parameters
    assert layer_bytes(LSTM, LayerBits(activation=8)) == 4 * LSTM.parameters + 2 * 8


def test_constants_and_unlisted_layers_are_float() -> None:
    constant = LayerShape("normalization", "constant", vectors=80)
    other = LayerShape("joiner.output", "linear", ((7, 9),), vectors=7, activations=1)
    bit_map = {LSTM.name: LayerBits(weight=4), constant.name: LayerBits(weight=2)}
    expected = layer_bytes(LSTM, LayerBits(weight=4)) + 4 * 80 + 4 * other.parameters
    assert size_bytes([constant, LSTM, other], bit_map) == expected
