"""Native arithmetic: training's forward pass in the integers that the packed model computes in."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from qstudy.quant.arithmetic import Arithmetic, LSTMState
from qstudy.quant.arithmetics.fake import FakeArithmetic
from qstudy.quant.grids import ActivationGrid, WeightGrid
from qstudy.quant.integer.accumulator import Grid
from qstudy.quant.integer_layers import QuantizedWeight, integer_linear, integer_lstm
from qstudy.quant.straight_through import straight_through

Gradient = Literal["float32", "bfloat16"]
"""Type in which the backward pass multiplies."""
GRADIENTS: dict[Gradient, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class NativeArithmetic(FakeArithmetic):
    """Integer products where weights and activations are both on grids; gradients go straight through.

    Without an activation grid, floats are multiplied by integer weights and rescaled after the sum. While an
    activation grid only watches (calibration, or before the policy's `activation_start`), it counts as absent. What
    has no weight grid computes as `FakeArithmetic` does.

    Up to 8 bits the operands are int8 and the sums int32; 16 bits have no integer product in torch, so their whole
    numbers are multiplied in float64, where they are exact as well.

    Source: Ding et al. 2022, arXiv 2203.15952.
    """

    def __init__(
        self,
        weights: Sequence[WeightGrid | None],
        inputs: ActivationGrid | None = None,
        hidden: ActivationGrid | None = None,
        gradient: Gradient = "float32",
    ) -> None:
        """Args: grids as for every gridded arithmetic; in which type the backward pass multiplies."""
        super().__init__(weights, inputs, hidden)
        self.gradient = GRADIENTS[gradient]
        self._quantized: dict[int, tuple[tuple[int, ...], QuantizedWeight]] = {}

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not isinstance(self.weights[0], WeightGrid):
            return super().linear(x, weight, bias)
        matrix = self._codes(0, weight)
        if self.inputs is None or not self.inputs.enabled:
            y = weight_only_product(self._input(x), matrix)
            return y if bias is None else y + bias
        return integer_linear(self._observed(x), matrix, bias, device_grid(self.inputs), self.gradient)

    grouped_linear = Arithmetic.grouped_linear  # by `linear`, in integers

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        grids = self.inputs, self.hidden
        if not isinstance(self.weights[0], WeightGrid) or not all(grid is not None and grid.enabled for grid in grids):
            return super().lstm(x, state, weights)
        w_input, w_hidden = (self._codes(index, matrix) for index, matrix in enumerate(weights[:2]))
        x, bias = self._observed(x), weights[2] + weights[3]
        on_grid = [device_grid(grid) for grid in grids if grid is not None]
        return integer_lstm(x, state, w_input, w_hidden, bias, on_grid[0], on_grid[1], self.gradient)

    def _observed(self, x: Tensor) -> Tensor:
        """x as the integer product takes it, after its grid has watched it.

        A trained grid snaps it, so that the grid's own gradient flows: the codes of snapped values are the same.
        """
        grid = self.inputs
        assert grid is not None
        if grid.trained:
            return self._input(x)
        if grid.observing and grid.training:
            grid.observe(x)
        return x

    def _codes(self, index: int, weight: Tensor) -> QuantizedWeight:
        """Quantize a matrix; when no gradient is wanted, reuse the last result until the matrix or its grid changes."""
        grid = self.weights[index]
        assert isinstance(grid, WeightGrid)
        if torch.is_grad_enabled():
            return quantize(grid, weight)
        version = versions(weight, grid)
        cached = self._quantized.get(index)
        if cached is None or cached[0] != version:
            cached = self._quantized[index] = (version, quantize(grid, weight))
        return cached[1]


def versions(weight: Tensor, grid: nn.Module) -> tuple[int, ...]:
    """Numbers that change whenever a matrix or its grid does."""
    state = (weight, *grid.parameters(), *grid.buffers())
    return tuple(number for tensor in state for number in (tensor._version, tensor.data_ptr()))


def quantize(grid: WeightGrid, weight: Tensor) -> QuantizedWeight:
    """The integers of weight (H, D), and what they stand for; gradients pass straight through to `weight`."""
    codes = grid.codes(weight)
    values = straight_through(weight, codes.integers * codes.scale)
    return QuantizedWeight(values, codes.integers, codes.scale.flatten())


def device_grid(grid: ActivationGrid) -> Grid:
    """An activation grid as the device knows it."""
    step, zero_point = grid.constants()
    return Grid(step, zero_point, grid.bits)


class _WeightOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, values)
        with torch.autocast(x.device.type, enabled=False):
            return (x @ codes.float().t()) * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, values = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            rows = grads[0].reshape(-1, len(values))
            grad_x = (rows @ values).view(x.shape)
            return grad_x, rows.t() @ x.reshape(len(rows), -1), None, None


def weight_only_product(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """Float x (..., D) times integer weights (H, D), rescaled after the sum, as the packed model does: (..., H)."""
    product: Tensor = _WeightOnly.apply(x.float(), weight.values, weight.codes, weight.scale)
    return product
