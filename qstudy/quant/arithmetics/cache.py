"""What was made of a weight matrix is used again until the matrix, or its quantizer, changes."""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class WeightCache(Generic[T]):
    """One value per matrix of a layer: its quantized values, its integers."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[tuple[int, ...], T]] = {}

    def get(self, index: int, weight: Tensor, quantizer: nn.Module, make: Callable[[Tensor], T]) -> T:
        """`make(weight)` of the matrix of this number; anew at every call where a gradient is wanted, which needs its
        own history."""
        if torch.is_grad_enabled():
            return make(weight)
        state = (weight, *quantizer.parameters(), *quantizer.buffers())
        version = tuple(number for tensor in state for number in (tensor._version, tensor.data_ptr()))
        held = self._held.get(index)
        if held is None or held[0] != version:
            held = self._held[index] = (version, make(weight))
        return held[1]
