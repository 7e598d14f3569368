"""Operators and bit maps as arrays: (N,) for operators, (C, N) for candidates times operators."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qstudy.bits import PLACEMENTS, BitMap, LayerBits
from qstudy.hardware.workload import Operator


class Columns:
    """The operators' numbers as integer arrays (N,): `Operator`'s fields, and its form as flags."""

    def __init__(self, operators: Sequence[Operator]) -> None:
        def column(values: Iterable[int]) -> np.ndarray:
            return np.array(list(values), dtype=np.int64)

        self.operators = operators
        self.inputs = column(op.inputs for op in operators)
        self.outputs = column(op.outputs for op in operators)
        self.groups = column(op.groups for op in operators)
        self.vectors = column(op.vectors for op in operators)
        self.constants = column(op.constants for op in operators)
        self.elementwise = column(op.elementwise for op in operators)
        self.nonlinear = column(op.nonlinear for op in operators)
        self.reuse = column(op.reuse for op in operators)
        self.stored = column(op.stored for op in operators)
        self.lookup = column(op.form == "lookup" for op in operators)
        self.product = column(op.form == "product" and op.macs > 0 for op in operators)
        self.error_prone = column(op.error_prone for op in operators)

    @cached_property
    def tables(self) -> np.ndarray:
        """Which operator's weights each operator reads (N,): its own, or, of a tied table's rows, those of the scores
        that come next."""
        layers = np.array([op.layer for op in self.operators])
        tied = self.lookup[:-1] * self.product[1:] * (layers[:-1] == layers[1:])
        return np.arange(len(layers)) + np.append(tied, 0)

    @cached_property
    def block_starts(self) -> np.ndarray:
        """Where a new block begins: the operators of one layer that share a placement cross to the CPU together."""
        return _starts([_block(op) for op in self.operators])

    @cached_property
    def split_starts(self) -> np.ndarray:
        """The same where the placement is `products`: error-prone operators are blocks of their own."""
        return _starts([(*_block(op), op.error_prone) for op in self.operators])


def _block(operator: Operator) -> tuple[object, ...]:
    """What operators of a block have in common; a tied table's rows are read at another time than its scores."""
    return operator.layer, operator.on_cpu, operator.form == "lookup"


def _starts(keys: Sequence[tuple[object, ...]]) -> np.ndarray:
    return np.array([i for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]], dtype=np.int64)


@dataclass(frozen=True)
class Widths:
    """The bit maps as integer arrays (C, N)."""

    weight: np.ndarray
    activation: np.ndarray
    codebook: np.ndarray
    per_scale: np.ndarray
    cpu: np.ndarray
    split: np.ndarray
    """1 where the layer's products and its error-prone operators are placed apart (`products`)."""


def widths(operators: Sequence[Operator], bit_maps: Sequence[BitMap]) -> Widths:
    """Look up every operator's widths in every bit map; layers that a map does not name are float."""
    layers = list(dict.fromkeys(operator.layer for operator in operators))
    default = LayerBits()
    rows = [[bit_map.get(layer, default) for layer in layers] for bit_map in bit_maps]
    numbers = np.array(
        [
            [
                (b.weight, b.activation, b.quantizer == "codebook", b.columns_per_scale, PLACEMENTS.index(b.placement))
                for b in row
            ]
            for row in rows
        ],
        dtype=np.int64,
    ).reshape(len(bit_maps), len(layers), 5)
    spread = numbers[:, [layers.index(operator.layer) for operator in operators]]
    weight, activation, codebook, per_scale, placement = (spread[..., i] for i in range(5))
    forced = np.array([operator.on_cpu for operator in operators])
    cpu, split = placement == PLACEMENTS.index("cpu"), placement == PLACEMENTS.index("products")
    return Widths(weight, activation, codebook, per_scale, cpu | forced, split)
