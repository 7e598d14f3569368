"""What every quantizer offers: a tensor's values for training, and its integers for the device."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor, nn

from qstudy.errors import Diverged

TINY = 1e-12  # a scale is never zero: an all-zero row has one, too


class QuantizedMatrix(NamedTuple):
    """A quantized matrix: values = integers * scale, or table[integers] * scale."""

    integers: Tensor
    """(rows, columns) int8, or int16 for 16 bits; with a table: indices into it, from 0."""
    scale: Tensor
    """(rows, 1) or (1, 1) float32; (rows, groups) where columns share a scale in groups."""
    table: Tensor | None = None
    """(K,) int8, the levels of a codebook; None: the integers are the levels."""


def bounds(bits: int, narrow: bool = True) -> tuple[int, int]:
    """Least and greatest integer of a signed quantizer: 2**bits - 1 levels, symmetric (narrow), or all 2**bits."""
    high = 2 ** (bits - 1) - 1
    return (-high if narrow else -high - 1), high


def integer_type(bits: int) -> torch.dtype:
    """The type that holds integers of this width: int8, or int16 above 8 bits."""
    return torch.int8 if bits <= 8 else torch.int16


class WeightQuantizer(nn.Module, ABC):
    """The quantizer of one weight matrix."""

    bits: int

    @abstractmethod
    def forward(self, weight: Tensor) -> Tensor:
        """Fake-quantize weight (rows, columns); gradients pass straight through."""

    @abstractmethod
    def quantize(self, weight: Tensor) -> QuantizedMatrix:
        """The integers that stand for `forward`'s values."""

    def calibrate(self, weight: Tensor) -> None:
        """Fit the quantizer to the trained weight, once, before fine-tuning or packing."""

    observes_inputs: bool = False
    """Whether calibration shows it what the matrix is multiplied with."""

    def observe_inputs(self, inputs: Tensor) -> None:
        """Take note of inputs (..., G, columns) that the matrix is about to be multiplied with: each of G groups by
        rows of its own, one G-th of all. G is 1 but for convolutions with groups."""

    def compute_qparams(self, weight: Tensor) -> None:
        """Choose the integers of weight after the batches of calibration have been observed."""


_switching = Lock()
"""Held while `without_observing` switches observers off and on."""


class ActivationQuantizer(nn.Module, ABC):
    """The quantizer of one activation tensor: integers low..high, values (integer - zero_point) * scale.

    The device has but two ranges of integers, `bounds(bits)`, and without a narrow end where it is shifted. One with
    other integers can be trained with, but neither packed nor multiplied in integers.

    It observes (`observer_enabled`) and fake-quantizes (`fake_quant_enabled`) independently, so that a policy can
    first learn ranges, then quantize, then freeze.
    """

    bits: int
    low: int
    high: int
    scale: Tensor
    """() float32, above zero."""
    zero_point: Tensor
    """() float32, a whole number."""
    trained: bool = False
    """Whether gradients move the range; then it is observed only before training."""
    static_range: bool = False
    """Whether calibration alone decides the range, whatever training brings."""
    follows_extremes: bool = False
    """Whether all that it observes is the least and the greatest value, so that these two stand for all the others."""
    layer: str = "An activation quantizer"
    """Whose activations it sees, for messages; the policy says it."""
    observer_enabled: bool = False
    fake_quant_enabled: bool = True
    _suspended: int = 0
    """How many calls of `without_observing` are under way, in as many threads."""
    _observed_before: bool = False
    """`observer_enabled` before the first of them."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Fake-quantize x (any shape); gradients pass straight through.

        Threads may call it at once, with `observer_enabled` off.
        """

    @abstractmethod
    def observe(self, x: Tensor) -> None:
        """Fit the range to x."""

    @property
    def takes_rows(self) -> bool:
        """Whether few rows at a time, after their extremes, give what all rows give at once: forward and backward."""
        return not self.trained and (self.follows_extremes or not (self.observer_enabled and self.training))

    def without_observing(self, x: Tensor) -> Tensor:
        """Fake-quantize x (any shape), whatever observes; several threads may do so at once."""
        parts = list(activation_quantizers(self))
        with _switching:
            for part in parts:
                part._observed_before = part._observed_before if part._suspended else part.observer_enabled
                part._suspended, part.observer_enabled = part._suspended + 1, False
        try:
            quantized: Tensor = self(x)
        finally:
            with _switching:
                for part in parts:
                    part._suspended -= 1
                    part.observer_enabled = part._observed_before and not part._suspended
        return quantized

    @property
    def shifted(self) -> bool:
        """Whether another integer than 0 stands for zero; who knows it without a look at a number says so."""
        return bool(self.zero_point)

    def levels(self, shifted: bool) -> tuple[int, int]:
        """Least and greatest integer, if another one than 0 stands for zero, or if none does."""
        return self.low, self.high

    def compute_qparams(self) -> None:
        """Choose the range after the batches of calibration have been observed."""

    def qparams(self) -> Tensor:
        """Scale and zero point, (2,) float32: what a packed model stores."""
        return torch.stack([self.scale.detach().abs().clamp_min(TINY), self.zero_point]).float()


def finite_extremes(x: Tensor, layer: str = ActivationQuantizer.layer) -> Tensor:
    """Least and greatest value of x (any shape), (2,) float32.

    Raises:
        Diverged: they are not finite; a range that took them up would never lose them again.
    """
    ends = torch.stack(torch.aminmax(x.detach().float()))
    if not ends.isfinite().all():
        raise Diverged(
            f"{layer} met values that are not finite; lower the learning rate, or train the float baseline longer "
            "or anew."
        )
    return ends


def activation_quantizers(model: nn.Module) -> Iterator[ActivationQuantizer]:
    """All activation quantizers of a model."""
    return (module for module in model.modules() if isinstance(module, ActivationQuantizer))
