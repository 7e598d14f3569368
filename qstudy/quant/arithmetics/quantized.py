"""An arithmetic with quantizers: one for each weight matrix, one for the inputs, one for hidden states."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.quant.arithmetics.base import TrainingArithmetic
from qstudy.quant.arithmetics.cache import WeightCache
from qstudy.quant.packed import PackedArithmetic, PackedFake, PackedInteger, PackedWeightsOnly
from qstudy.quant.quantizers import ActivationQuantizer, WeightQuantizer


class QuantizedArithmetic(TrainingArithmetic):
    """A layer whose weights, inputs and hidden state have quantizers; what has none stays in float."""

    def __init__(
        self,
        weights: Sequence[WeightQuantizer | None],
        inputs: ActivationQuantizer | None = None,
        hidden: ActivationQuantizer | None = None,
    ) -> None:
        """Args: one quantizer (or None) per weight matrix; quantizers of the inputs and of an LSTM's hidden state."""
        super().__init__()
        self.weights = nn.ModuleList(quantizer if quantizer is not None else nn.Identity() for quantizer in weights)
        self.inputs = inputs
        self.hidden = hidden
        self._fake_quantized: WeightCache[Tensor] = WeightCache()
        self._observing: dict[int, WeightQuantizer] = {}

    @property
    def packed(self) -> type[PackedArithmetic]:
        """By what is an integer: weights, activations, or both."""
        if not self.quantizes_weights:
            return PackedFake
        return PackedWeightsOnly if self.inputs is None else PackedInteger

    @property
    def quantizes_weights(self) -> bool:
        """Whether a matrix has a quantizer."""
        return any(isinstance(quantizer, WeightQuantizer) for quantizer in self.weights)

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        return F.embedding(ids, self._weight(0, weight))

    def calibrate(self, matrices: Sequence[Tensor]) -> None:
        """Fit the weight quantizers to the trained matrices; some observe the inputs until `compute_qparams`."""
        for index, (quantizer, matrix) in enumerate(zip(self.weights, matrices, strict=True)):
            if isinstance(quantizer, WeightQuantizer):
                quantizer.calibrate(matrix)
                if quantizer.observes_inputs:
                    self._observing[index] = quantizer

    def compute_qparams(self, matrices: Sequence[Tensor]) -> None:
        """After the batches of calibration: let the weight quantizers that observed inputs choose their integers."""
        for index, quantizer in self._observing.items():
            quantizer.compute_qparams(matrices[index])
        self._observing.clear()

    def pack(self, matrices: Sequence[Tensor]) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for index, (quantizer, matrix) in enumerate(zip(self.weights, matrices, strict=True)):
            if isinstance(quantizer, WeightQuantizer):
                codes = quantizer.quantize(matrix)
                tensors |= {f"{index}.codes": codes.integers, f"{index}.scale": codes.scale}
                if codes.table is not None:
                    tensors[f"{index}.table"] = codes.table
            else:
                tensors[f"{index}.float"] = matrix.detach()
        quantizers = [quantizer.qparams() for quantizer in (self.inputs, self.hidden) if quantizer is not None]
        if quantizers:
            tensors["activation"] = torch.stack(quantizers)
        return tensors

    def _input(self, x: Tensor) -> Tensor:
        quantized = x if self.inputs is None else self.inputs(x)
        if 0 in self._observing:
            self._observing[0].observe_inputs(quantized)
        return quantized

    def _recurred(self, outputs: Tensor, first: Tensor) -> Tensor:
        """Outputs (B, T, H) of an LSTM, passed through: one step later, from the first hidden state (1, B, H) on, they
        are what its hidden weights were multiplied with."""
        if 1 in self._observing:
            hidden = torch.cat([first.transpose(0, 1), outputs[:, :-1]], 1)
            self._observing[1].observe_inputs(hidden if self.hidden is None else self.hidden(hidden))
        return outputs

    def _weight(self, index: int, weight: Tensor) -> Tensor:
        """The matrix as its quantizer has it."""
        quantizer = self.weights[index]
        return self._fake_quantized.get(index, weight, quantizer, quantizer)
