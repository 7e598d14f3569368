"""Products of whole numbers: the gradient of one exact product is that of the product of fake-quantized values."""

import pytest
import torch
from torch import Tensor

from qstudy.quant.conv import ConvolutionWindows
from qstudy.quant.integer.accumulator import QParams, recorded_accumulators
from qstudy.quant.integer.layers import WeightOperand
from qstudy.quant.integer.whole_numbers import block_diagonal_integer_linear, integer_product
from qstudy.quant.straight_through import fake_quantize, straight_through

ZERO_POINTS = pytest.mark.parametrize("zero", [0.0, 3.0])


def qparams_of(zero: float) -> QParams:
    """Of a quantizer that clips some of the values of a normal distribution."""
    return QParams.read(torch.tensor(0.02), torch.tensor(zero), 8)


def fake(x: Tensor, qparams: QParams) -> Tensor:
    return fake_quantize(x, qparams.scale, qparams.zero_point, *qparams.bounds())


def compare(found: Tensor, expected: Tensor, operands: tuple[Tensor, ...]) -> None:
    """Values, and gradients by the same random upstream."""
    upstream = torch.randn_like(found)
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad(y, operands, upstream) for y in (found, expected))
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other)
        assert mine.any()


@ZERO_POINTS
def test_gradient_of_a_product_of_activations(zero: float) -> None:
    qparams = qparams_of(zero)
    x, y = torch.randn(3, 6, 30, requires_grad=True), torch.randn(3, 30, 5, requires_grad=True)
    assert (fake(x, qparams) - x).abs().max() > 0.1  # some are clipped
    compare(integer_product(x, y, qparams, qparams), fake(x, qparams) @ fake(y, qparams), (x, y))


@ZERO_POINTS
@pytest.mark.parametrize("windows", [ConvolutionWindows(3, 2, 2, 3), ConvolutionWindows(1, 1, 1, 3)], ids=str)
def test_gradient_of_a_grouped_convolution(windows: ConvolutionWindows, zero: float) -> None:
    """Whose accumulators are those of the windows, each multiplied by itself."""
    qparams, scale = qparams_of(zero), torch.linspace(0.05, 0.1, 12).unsqueeze(1)
    x, weight = torch.randn(2, 6, 30, requires_grad=True), torch.randn(12, 2 * windows.kernel, requires_grad=True)
    codes = (weight.detach() / scale).round().clamp(-7, 7).to(torch.int8)
    values = straight_through(weight, codes * scale)
    with recorded_accumulators() as record:
        y = block_diagonal_integer_linear(x, WeightOperand(values, codes, scale.flatten()), None, qparams, windows)
    seen = windows(qparams.quantize(x.detach()).long() - int(zero))  # (B, T', groups, D)
    exact = torch.einsum("btgd,ghd->btgh", seen, codes.long().unflatten(0, (3, -1))).flatten(-2)
    assert torch.equal(record[0].long(), exact)
    expected = torch.einsum("btgd,ghd->btgh", windows(fake(x, qparams)), values.unflatten(0, (3, -1))).flatten(-2)
    compare(y, expected, (x, weight))
