"""The slot of every quantizable layer: an arithmetic says how the layer computes; an empty slot is plain `torch.nn`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from qstudy.quant.packed.arithmetics import PackedArithmetic

LSTMState = tuple[Tensor, Tensor]
"""Hidden state h and cell state c of one LSTM layer, each (1, B, H) float32."""

Extremes = Callable[[], Tensor]
"""Rows (..., J) among whose numbers are the least and the greatest of all rows'."""


class Windows:
    """What each output of a convolution with G groups sees of a signal; here the signal itself, (..., G, D)."""

    def __call__(self, x: Tensor) -> Tensor:
        """The signal's numbers as they are, some several times: (..., G, D)."""
        return x

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """What each group sees of x, also of integers, times its own H / G rows of weight (H, D) float: (..., H)."""
        return block_diagonal_product(self(x), weight)


whole = Windows()
"""No windows."""


class Affine(NamedTuple):
    """An affine map whose rows go through it a few at a time, forward and again backward: what must not happen twice,
    such as observing and quantizing the weight, is done."""

    weight: Tensor
    """(V, J) float, what the gradient is of."""
    bias: Tensor | None
    """(V,)."""
    prepare: Callable[[Tensor], Tensor] | None = None
    """Rows (N, J) as the weight multiplies them, with their gradient; None: as they are."""
    product: Callable[[Tensor], Tensor] | None = None
    """Rows (N, J) to (N, V) without a gradient, where that is no float product of what `prepare` makes of them."""
    tanh: Callable[[Tensor], Tensor] | None = None
    """The layer's own, of a joiner; None: torch's."""
    gradient: torch.dtype | None = None
    """In which the backward pass multiplies; None: as a float layer does."""


class Arithmetic(nn.Module, ABC):
    """How one layer computes, in training (`TrainingArithmetic`) or on the device (`PackedArithmetic`).

    One method for each operation of a quantizable layer; those that it lacks, its layers may not need.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Who computes `linear` in a way of its own has no `repeated_linear` and no `affine` of its parent's."""
        super().__init_subclass__(**options)
        if "linear" in vars(cls) and "repeated_linear" not in vars(cls):
            cls.repeated_linear = Arithmetic.repeated_linear  # type: ignore[method-assign]
        if "affine" not in vars(cls) and {"linear", "repeated_linear", "tanh"} & vars(cls).keys():
            cls.affine = Arithmetic.affine  # type: ignore[method-assign]

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Affine map of x (..., D) by weight (H, D) and bias (H): (..., H) float32."""
        raise self._has_no("affine map")

    def block_diagonal_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows = whole) -> Tensor:
        """Affine map of each of G groups by its own H / G rows of weight: x (..., G, D), weight (H, D) -> (..., H).

        Where x is a signal, `windows` makes that of it. They overlap, so that x is to be quantized before.

        Here every group is multiplied with all rows and the others' results are dropped: right in any arithmetic, but G
        times the work, so that most override it.
        """
        x = windows(x)
        every = self.linear(x, weight, bias).unflatten(-1, (x.shape[-2], -1))  # (..., G, G, H / G)
        return every.diagonal(dim1=-3, dim2=-2).transpose(-1, -2).flatten(-2)

    def repeated_linear(self, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
        """`linear` as a function of x, for many calls with these very tensors: what can be done once is done now."""
        return lambda x: self.linear(x, weight, bias)

    def affine(self, weight: Tensor, bias: Tensor | None, extremes: Extremes) -> Affine | None:
        """`linear` of rows a few at a time; None, the default: the rows must come together.

        Args:
            weight: (V, J).
            bias: (V,) or None.
            extremes: called if the rows are to be observed.
        """
        return None

    def observe(self, x: Tensor) -> None:
        """Let the quantizer of the inputs, if it watches, see x (..., D) without a product; nothing by default."""

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        """The product of two activations: x (..., M, K) by y (..., K, N) -> (..., M, N) float32."""
        raise self._has_no("product of activations")

    def softmax(self, x: Tensor) -> Tensor:
        """Over the last dimension of x (..., N), in which minus infinity stands for nothing: (..., N) float32."""
        raise self._has_no("softmax")

    def tanh(self, x: Tensor) -> Tensor:
        """What the layer takes is the tanh of x (...): (...) float32; in float, unless the arithmetic has its own."""
        return torch.tanh(x)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        """Normalization of the last dimension of x (..., D), by weight and bias (D): (..., D) float32."""
        raise self._has_no("normalization")

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        """One unidirectional LSTM layer over x (B, T, D).

        Args:
            x: inputs (B, T, D) float32.
            state: initial h and c.
            weights: input weights (4H, D), hidden weights (4H, H), input bias (4H), hidden bias (4H); gates in
                torch's order: input, forget, cell, output.

        Returns:
            Outputs (B, T, H) float32 and the state after the last frame.
        """
        raise self._has_no("recurrence")

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        """Rows of weight (V, D) at ids (...): (..., D) float32."""
        raise self._has_no("table")

    def float_matrices(self, matrices: list[Tensor]) -> list[Tensor]:
        """The layer's weights in float, (rows, columns) each: its own `matrices`, if it has them."""
        return matrices

    def _has_no(self, operation: str) -> NotImplementedError:
        return NotImplementedError(f"the arithmetic {type(self).__name__} has no {operation}")


class TrainingArithmetic(Arithmetic):
    """How one layer computes while it trains. The layer owns its parameters and hands them over."""

    @property
    @abstractmethod
    def packed(self) -> "type[PackedArithmetic]":
        """What runs the packed layer; the header names it. A class attribute will do: `packed = MyPacked`."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the packed layer must know beside its tensors, as JSON (`StoredLayer.settings`)."""
        return {}

    def calibrate(self, matrices: Sequence[Tensor]) -> None:
        """Before the batches of calibration: what can be chosen from the trained matrices alone; nothing by default."""

    def compute_qparams(self, matrices: Sequence[Tensor]) -> None:
        """After these batches: what depends on the inputs that came; nothing by default."""

    @abstractmethod
    def pack(self, matrices: Sequence[Tensor]) -> dict[str, Tensor]:
        """What the device gets instead of the float matrices: see `qstudy.quant.packed.arithmetics` for the names."""


def block_diagonal_product(x: Tensor, weight: Tensor) -> Tensor:
    """Each of G groups times its own H / G rows: x (..., G, D), also of integers, weight (H, D) float -> (..., H)."""
    rows = weight.unflatten(0, (x.shape[-2], -1))  # (G, H / G, D)
    if rows.shape[1] > 1:
        return torch.einsum("...gd,ghd->...gh", x.to(weight.dtype), rows).flatten(-2)
    first, *others = zip(x.unbind(-1), weight.unbind(-1), strict=True)  # depthwise: windows are not worth a copy
    return sum((column * factor for column, factor in others), first[0] * first[1])
