"""The LSTM recurrence with a quantized hidden state, against a plain loop that autograd differentiates."""

import pytest
import torch
from torch import Tensor, nn

from qstudy.quant.arithmetics.fake import FakeArithmetic
from qstudy.quant.layers import LSTM
from qstudy.quant.quantizers import FixedActivations
from qstudy.quant.recurrence.frames import quantized_recurrence

SHAPES = [(1, 1, 1), (1, 3, 5), (2, 1, 4), (9, 2, 3), (17, 3, 8)]  # T, B, H
STEP = torch.tensor(1 / 127)
Outputs = tuple[Tensor, Tensor, Tensor]


def rounded(h: Tensor, scale: float, high: int) -> Tensor:
    """Rounding that autograd does not see."""
    return h + ((h / scale).round().clamp(-high, high) * scale - h).detach()


def reference(inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, scale: float, high: int) -> Outputs:
    outputs = []
    for frame in inputs:
        i, f, g, o = (frame + rounded(h, scale, high) @ weight.t()).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs), h, c


def arguments(shape: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    frames, batch, hidden = shape
    generator = torch.Generator().manual_seed(frames * 100 + hidden)
    sizes = [(frames, batch, 4 * hidden), (batch, hidden), (batch, hidden), (4 * hidden, hidden)]
    values = [torch.randn(*size, generator=generator, dtype=dtype) for size in sizes]
    values[1].tanh_()
    return [value.requires_grad_() for value in values]


@pytest.mark.parametrize("high", [1, 7, 127], ids="high={}".format)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_and_gradients_are_those_of_the_loop(shape: tuple[int, int, int], high: int) -> None:
    ours, theirs = arguments(shape, torch.float64), arguments(shape, torch.float64)
    y = quantized_recurrence(*ours, torch.tensor(1 / high, dtype=torch.float64), high)
    expected = reference(*theirs, 1 / high, high)
    upstream = [torch.randn_like(part) for part in y]
    torch.autograd.backward(y, upstream)
    torch.autograd.backward(expected, upstream)
    for mine, other in zip(y, expected, strict=True):
        torch.testing.assert_close(mine, other)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


@pytest.mark.parametrize("used", [0, 1, 2], ids=["outputs", "last h", "last c"])
def test_gradient_of_each_output_alone(used: int) -> None:
    ours, theirs = arguments((6, 2, 4), torch.float64), arguments((6, 2, 4), torch.float64)
    quantized_recurrence(*ours, torch.tensor(1 / 7, dtype=torch.float64), 7)[used].square().sum().backward()
    reference(*theirs, 1 / 7, 7)[used].square().sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_outputs_in_float32() -> None:
    values = [value.detach() for value in arguments((25, 4, 16))]
    for mine, other in zip(quantized_recurrence(*values, STEP, 127), reference(*values, 1 / 127, 127), strict=True):
        torch.testing.assert_close(mine, other, atol=2e-2, rtol=0)  # a tie rounded the other way is one step of a gate


def test_a_sequence_in_two_parts() -> None:
    inputs, h, c, weight = (value.detach() for value in arguments((10, 2, 5)))
    whole = quantized_recurrence(inputs, h, c, weight, STEP, 127)
    first = quantized_recurrence(inputs[:4], h, c, weight, STEP, 127)
    second = quantized_recurrence(inputs[4:], *first[1:], weight, STEP, 127)
    assert torch.equal(torch.cat([first[0], second[0]]), whole[0])
    assert torch.equal(second[2], whole[2])


@pytest.mark.parametrize(("bits", "tolerance"), [(16, 1e-3), (8, 0.1)])
def test_many_bits_approach_the_float_lstm(bits: int, tolerance: float) -> None:
    torch.manual_seed(0)
    layer, twin = LSTM(6, 12), nn.LSTM(6, 12, batch_first=True)
    twin.load_state_dict(layer.state_dict())
    layer.arithmetic = FakeArithmetic([None, None], None, FixedActivations(bits))
    x = torch.randn(3, 20, 6)
    state = (torch.rand(1, 3, 12) - 0.5, torch.randn(1, 3, 12))
    (y, (h, c)), (y2, (h2, c2)) = layer(x, state), twin(x, state)
    for mine, other in ((y, y2), (h, h2), (c, c2)):
        assert mine.shape == other.shape
        assert 0 < float((mine - other).detach().abs().max()) < tolerance
    y.square().sum().backward()
    y2.square().sum().backward()
    for mine, other in zip(layer.parameters(), twin.parameters(), strict=False):
        assert float((mine.grad - other.grad).abs().max()) < tolerance * float(other.grad.abs().max()) * 2
