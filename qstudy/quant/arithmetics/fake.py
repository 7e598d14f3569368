"""Fake arithmetic: weights and activations are fake-quantized, products are in float."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.quant.arithmetic import (
    Affine,
    Extremes,
    LSTMState,
    TrainingArithmetic,
    Windows,
    whole,
)
from qstudy.quant.integer.accumulator import device_qparams
from qstudy.quant.integer.whole_numbers import integer_product
from qstudy.quant.packed.arithmetics import (
    PackedArithmetic,
    PackedFake,
    PackedGroups,
    PackedInteger,
    PackedProduct,
    PackedWeightsOnly,
)
from qstudy.quant.quantizers import ActivationQuantizer, WeightQuantizer
from qstudy.quant.recurrence.frames import quantized_lstm

T = TypeVar("T")


class WeightCache(Generic[T]):
    """What was made of a matrix of a layer (its quantized values, its integers) is used again until the matrix, or its
    quantizer, changes."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[tuple[int, ...], list[Tensor], T]] = {}

    def get(self, index: int, weight: Tensor, quantizer: nn.Module, make: Callable[[Tensor], T]) -> T:
        """`make(weight)` of the matrix of this number; anew at every call where a gradient is wanted, which needs its
        own history. What was held is dropped then: fused optimizers change a matrix without raising its version."""
        if torch.is_grad_enabled():
            self._held.pop(index, None)
            return make(weight)
        state = (weight, *quantizer.parameters(), *quantizer.buffers())
        version = tuple(number for tensor in state for number in (tensor._version, tensor.data_ptr()))
        held = self._held.get(index)
        if held is None or held[0] != version:
            alive = [tensor.detach() for tensor in state]  # else another tensor may come to lie at the same address
            held = self._held[index] = (version, alive, make(weight))
        return held[2]


class QuantizedArithmetic(TrainingArithmetic):
    """A layer whose weights, inputs and hidden state have quantizers; what has none stays in float."""

    def __init__(
        self,
        weights: Sequence[WeightQuantizer | None],
        inputs: ActivationQuantizer | None = None,
        hidden: ActivationQuantizer | None = None,
    ) -> None:
        """
        Args:
            weights: one quantizer (or None) per weight matrix.
            inputs: quantizer of the inputs.
            hidden: of an LSTM's hidden state; of a product of activations, its second operand.
        """
        super().__init__()
        self.weights = nn.ModuleList(quantizer if quantizer is not None else nn.Identity() for quantizer in weights)
        self.inputs = inputs
        self.hidden = hidden
        self._fake_quantized: WeightCache[Tensor] = WeightCache()
        self._input_observers: dict[int, WeightQuantizer] = {}

    @property
    def packed(self) -> type[PackedArithmetic]:
        """By what is an integer: weights, activations, or both."""
        if not self.weights:
            return PackedProduct
        if not self.quantizes_weights:
            return PackedFake
        return PackedWeightsOnly if self.inputs is None else PackedInteger

    @property
    def quantizes_weights(self) -> bool:
        """Whether a matrix has a quantizer."""
        return any(isinstance(quantizer, WeightQuantizer) for quantizer in self.weights)

    @property
    def enabled_inputs(self) -> ActivationQuantizer | None:
        """`inputs` where it quantizes; None while it only observes."""
        return _enabled(self.inputs)

    @property
    def enabled_hidden(self) -> ActivationQuantizer | None:
        """`hidden`, likewise."""
        return _enabled(self.hidden)

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        return F.embedding(ids, self._weight(0, weight))

    def observe(self, x: Tensor) -> None:
        if self.inputs is not None and self.inputs.training:
            with torch.no_grad():
                self._input(x)

    def calibrate(self, matrices: Sequence[Tensor]) -> None:
        """Fit the weight quantizers to the trained matrices; some observe the inputs until `compute_qparams`."""
        for index, (quantizer, matrix) in enumerate(zip(self.weights, matrices, strict=True)):
            if isinstance(quantizer, WeightQuantizer):
                quantizer.calibrate(matrix)
                if quantizer.observes_inputs:
                    self._input_observers[index] = quantizer

    def compute_qparams(self, matrices: Sequence[Tensor]) -> None:
        """After the batches of calibration: let the weight quantizers that observed inputs choose their integers."""
        for index, quantizer in self._input_observers.items():
            quantizer.compute_qparams(matrices[index])
        self._input_observers.clear()

    def pack(self, matrices: Sequence[Tensor]) -> dict[str, Tensor]:
        """
        Raises:
            UserError: an activation quantizer has other integers than a device.
        """
        tensors: dict[str, Tensor] = {}
        for index, (quantizer, matrix) in enumerate(zip(self.weights, matrices, strict=True)):
            if isinstance(quantizer, WeightQuantizer):
                quantized = quantizer.quantize(matrix)
                tensors |= {f"{index}.codes": quantized.integers, f"{index}.scale": quantized.scale}
                if quantized.table is not None:
                    tensors[f"{index}.table"] = quantized.table
            else:
                tensors[f"{index}.float"] = matrix.detach()
        quantizers = [quantizer for quantizer in (self.inputs, self.hidden) if quantizer is not None]
        for quantizer in quantizers:
            device_qparams(quantizer)  # which a device must have
        if quantizers:
            tensors["activation"] = torch.stack([quantizer.qparams() for quantizer in quantizers])
        return tensors

    def _input(self, x: Tensor, windows: Windows | None = None) -> Tensor:
        """x (..., D), or what `windows` make (..., G, D) of, quantized."""
        quantized = x if self.inputs is None else self.inputs(x)
        if 0 in self._input_observers:
            seen = quantized.unsqueeze(-2) if windows is None else windows(quantized)
            self._input_observers[0].observe_inputs(seen)
        return quantized

    def _takes_rows(self, extremes: Extremes) -> bool:
        """Whether rows may come a few at a time; if so, their extremes are observed."""
        if self._input_observers or not (self.inputs is None or self.inputs.takes_rows):
            return False
        if self.inputs is not None and self.inputs.observer_enabled:
            self.observe(extremes())
        return True

    def _observe_hidden(self, outputs: Tensor, first: Tensor) -> Tensor:
        """Outputs (B, T, H) of an LSTM, passed through: one frame later, from the first hidden state (1, B, H) on, they
        are what its hidden weights were multiplied with; a quantizer whose range is not known follows them."""
        if self.hidden is not None and self.hidden.observer_enabled and self.hidden.training:
            self.hidden.observe(outputs)
        if 1 in self._input_observers:
            hidden = torch.cat([first.transpose(0, 1), outputs[:, :-1]], 1)
            quantized = hidden if self.hidden is None else self.hidden(hidden)
            self._input_observers[1].observe_inputs(quantized.unsqueeze(-2))
        return outputs

    def _weight(self, index: int, weight: Tensor) -> Tensor:
        """The matrix as its quantizer has it."""
        quantizer = self.weights[index]
        return self._fake_quantized.get(index, weight, quantizer, quantizer)


def _enabled(quantizer: ActivationQuantizer | None) -> ActivationQuantizer | None:
    return quantizer if quantizer is not None and quantizer.fake_quant_enabled else None


def observed(x: Tensor, quantizer: ActivationQuantizer) -> Tensor:
    """x as an integer product takes it, after its quantizer has observed it.

    A trained quantizer fake-quantizes it, so that its own gradient flows: the codes stay the same.
    """
    if quantizer.trained:
        quantized: Tensor = quantizer(x)
        return quantized
    if quantizer.observer_enabled and quantizer.training:
        quantizer.observe(x)
    return x


class FakeArithmetic(QuantizedArithmetic):
    """A layer whose weights, inputs and hidden state are fake-quantized; what has no quantizer stays in float."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(self._input(x), self._weight(0, weight), bias)

    def repeated_linear(self, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
        values = self._weight(0, weight)
        return lambda x: F.linear(self._input(x), values, bias)

    def affine(self, weight: Tensor, bias: Tensor | None, extremes: Extremes) -> Affine | None:
        if not self._takes_rows(extremes):
            return None
        return Affine(self._weight(0, weight), bias, None if self.inputs is None else self.inputs.without_observing)

    def block_diagonal_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows = whole) -> Tensor:
        y = windows.product(self._input(x, windows), self._weight(0, weight))
        return y if bias is None else y + bias

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.matmul(self._input(x), y if self.hidden is None else self.hidden(y))

    def softmax(self, x: Tensor) -> Tensor:
        return torch.softmax(x, -1)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)

    def _integer_matmul(self, x: Tensor, y: Tensor) -> Tensor:
        """`matmul` in integers; in float while the operands are only observed."""
        first, second = self.enabled_inputs, self.enabled_hidden
        if first is None or second is None:
            return FakeArithmetic.matmul(self, x, y)
        x, y = observed(x, first), observed(y, second)
        return integer_product(x, y, device_qparams(first), device_qparams(second))

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        w_input, w_hidden, b_input, b_hidden = weights
        x, w_input, w_hidden = self._input(x), self._weight(0, w_input), self._weight(1, w_hidden)
        quantizer = self.enabled_hidden
        if quantizer is None:
            flat = [w_input, w_hidden, b_input, b_hidden]
            y, h, c = torch._VF.lstm(x, state, flat, True, 1, 0.0, self.training, False, True)
            return self._observe_hidden(y, state[0]), (h, c)
        scale, bias = quantizer.scale.detach(), b_input + b_hidden
        y, after = quantized_lstm(x, state, w_input, w_hidden, bias, scale, quantizer.high)
        return self._observe_hidden(y, state[0]), after


class GroupedArithmetic(FakeArithmetic):
    """Fake arithmetic with several scales per row: run by partial products."""

    @property
    def packed(self) -> type[PackedArithmetic]:
        return PackedGroups if self.quantizes_weights else super().packed
