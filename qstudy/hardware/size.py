"""Exact bytes of packed weights: what `export` writes, known before training."""

from collections.abc import Iterable
from typing import Any

from qstudy.bits import FLOAT, BitMap, LayerBits, LayerShape

SCALE_BYTES = 4  # float32
QPARAMS_BYTES = 8  # float32 scale and float32 zero point of one activation quantizer


def packed_bytes(rows: Any, columns: Any, weight: Any, codebook: Any, per_scale: Any) -> Any:
    """Bytes of weight matrices (rows, columns): packed integers, their scales, and the table of a codebook quantizer.

    Columns of a row share a scale in groups of `per_scale` (0: the whole matrix has one). Every argument is an integer
    (or a bool), or an integer array; arrays broadcast.
    """
    packed = -(-rows * columns * weight // 8)
    table = SCALE_BYTES + 2**weight  # one scale and one int8 entry per centroid
    per_tensor = per_scale == 0
    per_row = -(-columns // (per_scale + per_tensor))
    scales = SCALE_BYTES * (per_tensor + (1 - per_tensor) * rows * per_row)
    return packed + (weight != FLOAT) * (codebook * table + (1 - codebook) * scales)


def layer_bytes(shape: LayerShape, bits: LayerBits) -> int:
    """Bytes of one layer as it is packed: its matrices, vectors of any type, and activation quantizers."""
    form = (bits.weight, int(bits.quantizer == "codebook"), bits.columns_per_scale)
    matrices = sum(packed_bytes(rows, columns, *form) for rows, columns in shape.matrices)
    quantizers = shape.activations if bits.activation != FLOAT else 0
    return matrices + 4 * shape.vectors + shape.other_bytes + QPARAMS_BYTES * quantizers


def size_bytes(shapes: Iterable[LayerShape], bit_map: BitMap) -> int:
    """Bytes of all layers; constants and layers that the bit map does not name are stored as they are."""
    return sum(layer_bytes(shape, _bits_of(shape, bit_map)) for shape in shapes)


def _bits_of(shape: LayerShape, bit_map: BitMap) -> LayerBits:
    return LayerBits() if shape.kind == "constant" else bit_map.get(shape.name, LayerBits())
