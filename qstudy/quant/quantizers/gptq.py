"""Second-order rounding of weights: each rounding error is made up for by the weights that are not yet rounded.

Source: GPTQ, Frantar et al. 2022, arXiv 2210.17323.
"""

from typing import Any

import torch
from torch import Tensor

from qstudy.errors import Diverged
from qstudy.quant.quantizers.base import QuantizedMatrix, integer_type
from qstudy.quant.quantizers.blocks import from_blocks, spread, to_blocks
from qstudy.quant.quantizers.weights import UniformWeights

DAMPENING = 0.01  # of the mean of the Hessian's diagonal, added to the diagonal
BLOCK = 128  # columns whose errors reach the later ones in one product


class SecondOrderWeights(UniformWeights):
    """A uniform quantizer whose integers are chosen once, after calibration, and then kept; until then to the nearest.

    What calibration never multiplies the matrix with (an embedding) keeps the nearest integers.
    """

    observes_inputs = True
    hessian: Tensor
    integers: Tensor
    chosen: Tensor

    def __init__(self, weight: Tensor, *options: Any, **more: Any) -> None:
        """Args: as for `UniformWeights`."""
        super().__init__(weight, *options, **more)
        self.register_buffer("hessian", weight.new_zeros(0, 0, 0, dtype=torch.float64), persistent=False)
        self.register_buffer("integers", torch.zeros_like(weight, dtype=integer_type(self.bits)))
        self.register_buffer("chosen", torch.zeros((), dtype=torch.bool, device=weight.device))

    @torch.no_grad()
    def observe_inputs(self, inputs: Tensor) -> None:
        """Add X^T X of the inputs X of each group, from (..., G, columns)."""
        flat = inputs.reshape(-1, *inputs.shape[-2:]).float().transpose(0, 1)  # (G, N, columns)
        product = (flat.transpose(1, 2) @ flat).double()
        self.hessian = product if self.hessian.numel() == 0 else self.hessian + product

    @torch.no_grad()
    def compute_qparams(self, weight: Tensor) -> None:
        """Choose the integers.

        Raises:
            Diverged: the inputs' squares are not finite.
        """
        if self.hessian.numel():
            if not self.hessian.isfinite().all():
                raise Diverged(
                    "rounding: gptq squares the inputs of a layer, and some are too large for it; use nearest, or "
                    "train the float baseline longer or anew."
                )
            scale = spread(self._by_rows(self.scale(weight), len(weight)), self.per_scale, weight.shape)
            groups = zip(weight.chunk(len(self.hessian)), scale.chunk(len(self.hessian)), self.hessian, strict=True)
            codes = [second_order_codes(rows, scales, own, self.low, self.high) for rows, scales, own in groups]
            self.integers.copy_(torch.cat(codes))
            self.chosen.fill_(True)
            self.hessian = self.hessian.new_zeros(0, 0, 0)

    def forward(self, weight: Tensor) -> Tensor:
        if not self.chosen:
            return super().forward(weight)
        blocks = to_blocks(self.integers.float(), self.per_scale)
        return from_blocks(blocks * self.scale(weight), weight.shape)

    @torch.no_grad()
    def quantize(self, weight: Tensor) -> QuantizedMatrix:
        return self._matrix(self.integers, self.scale(weight)) if self.chosen else super().quantize(weight)


def second_order_codes(weight: Tensor, scale: Tensor, hessian: Tensor, low: int, high: int) -> Tensor:
    """Integers whose matrix times the inputs comes close to that of the weights, in least squares.

    Columns go by falling second moment of their inputs; each column's rounding error is spread over the columns after
    it so that the outputs change least.

    Args:
        weight: (rows, columns) float.
        scale: of each weight, (rows, columns) float32.
        hessian: X^T X of the inputs X, (columns, columns) float64.
        low: the least integer.
        high: the greatest integer.

    Returns:
        (rows, columns) float64 that holds whole numbers.
    """
    order = hessian.diagonal().argsort(descending=True)
    upper = _inverse_factor(hessian[order][:, order])
    rest, scales = weight.detach()[:, order].double(), scale[:, order].double()
    codes = torch.empty_like(rest)
    for begin in range(0, rest.shape[1], BLOCK):
        block = slice(begin, min(begin + BLOCK, rest.shape[1]))
        errors = _round_block(rest[:, block], scales[:, block], upper[block, block], codes[:, block], low, high)
        rest[:, block.stop :] -= errors @ upper[block, block.stop :]
    return codes[:, order.argsort()]


def _round_block(rest: Tensor, scales: Tensor, upper: Tensor, codes: Tensor, low: int, high: int) -> Tensor:
    """Round the columns of a block in turn, in place; returns their weighted errors (rows, columns of the block)."""
    errors = torch.empty_like(rest)
    for column in range(rest.shape[1]):
        exact, size = rest[:, column], scales[:, column]
        codes[:, column] = torch.round(exact / size).clamp(low, high)
        errors[:, column] = (exact - codes[:, column] * size) / upper[column, column]
        rest[:, column + 1 :] -= errors[:, column, None] * upper[column, column + 1 :]
    return errors


def _inverse_factor(hessian: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse of the dampened Hessian (columns, columns)."""
    diagonal = hessian.diagonal()
    damp = (DAMPENING * diagonal.mean()).clamp_min(torch.finfo(torch.float32).tiny)
    lower = torch.linalg.cholesky(hessian + damp * torch.eye(len(hessian), dtype=hessian.dtype, device=hessian.device))
    return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
