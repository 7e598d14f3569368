"""Integer layers: the accumulators against NumPy's int64, the gradients against what straight-through means."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from qstudy.quant import bfloat16
from qstudy.quant.integer.accumulator import QParams, device_qparams, recorded_accumulators
from qstudy.quant.integer.layers import WeightOperand, integer_linear, integer_lstm
from qstudy.quant.integer.whole_numbers import integer_product
from qstudy.quant.kernels import SWITCH
from qstudy.quant.quantizers import UniformActivations

sizes = st.integers(1, 40)
seeds = st.integers(0, 2**31 - 1)
few = settings(max_examples=25, deadline=None)


def qparams_of(step: float, zero_point: int = 0, bits: int = 8) -> QParams:
    return QParams.read(torch.tensor(step), torch.tensor(float(zero_point)), bits)


def quantized(weight: Tensor, bits: int = 8) -> WeightOperand:
    """Per row, by the maximum, with a straight-through gradient."""
    scale = (weight.detach().abs().amax(1) / (2 ** (bits - 1) - 1)).clamp_min(1e-8)
    codes = torch.round(weight.detach() / scale[:, None])
    values = weight + (codes * scale[:, None] - weight).detach()
    return WeightOperand(values, codes.to(torch.int8 if bits <= 8 else torch.int16), scale)


def extreme_codes(generator: torch.Generator, *shape: int) -> Tensor:
    """QuantizedMatrix of which many are at the ends."""
    return (torch.randn(*shape, generator=generator) * 150).round().clamp_(-128, 127).to(torch.int8)


@few
@given(sizes, sizes, sizes, seeds, st.sampled_from([0, -128, 5]), st.floats(-6, 6))
def test_linear_accumulators_are_numpys(
    rows: int, columns: int, outputs: int, seed: int, zero: int, magnitude: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    on = qparams_of(10**magnitude, zero)
    x = torch.randn(rows, columns, generator=generator) * 10**magnitude * 90
    codes = extreme_codes(generator, outputs, columns)
    scale, bias = torch.rand(outputs, generator=generator), torch.randn(outputs, generator=generator)
    with recorded_accumulators() as record:
        y = integer_linear(x, WeightOperand(None, codes, scale), bias, on)
    low = -128 if zero else -127
    x_codes = np.clip(np.rint(x.numpy() / on.scale.numpy() + np.float32(zero)), low, 127).astype(np.int64)
    expected = (x_codes - zero) @ codes.numpy().astype(np.int64).T
    np.testing.assert_array_equal(record[0].numpy(), expected)
    assert record[0].dtype == torch.int32
    factor = on.scale.numpy() * scale.numpy()
    np.testing.assert_array_equal(y.numpy(), expected.astype(np.float32) * factor + bias.numpy())


@pytest.mark.parametrize("zero", [0, 11])
def test_linear_gradients_are_straight_through(zero: int) -> None:
    torch.manual_seed(0)
    on = qparams_of(0.02, zero)
    x = (torch.randn(4, 7, 9) * 2).requires_grad_()
    weight, bias = torch.randn(5, 9, requires_grad=True), torch.randn(5, requires_grad=True)
    matrix = quantized(weight)
    upstream = torch.randn(4, 7, 5)
    integer_linear(x, matrix, bias, on).backward(upstream)
    codes = on.quantize(x.detach())
    low, high = on.bounds()
    clipped = (torch.round(x / on.scale + zero) < low) | (torch.round(x / on.scale + zero) > high)
    assert 0.01 < clipped.float().mean() < 0.9
    dx = torch.where(clipped, 0, upstream @ matrix.codes.mul(matrix.scale[:, None]))
    torch.testing.assert_close(x.grad, dx)
    values = (codes.float() - zero) * on.scale
    torch.testing.assert_close(weight.grad, upstream.flatten(0, 1).t() @ values.flatten(0, 1))
    torch.testing.assert_close(bias.grad, upstream.sum((0, 1)))


def test_sixteen_bits_are_exact_too() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(3, 400), quantized(torch.randn(4, 400), bits=16)
    with recorded_accumulators() as record:
        integer_linear(x, weight, None, qparams_of(1e-4, bits=16))
    codes = np.rint(x.numpy() / np.float32(1e-4)).clip(-32767, 32767).astype(np.int64)
    expected = codes @ weight.codes.numpy().astype(np.int64).T
    assert abs(expected).max() > 2**31
    np.testing.assert_array_equal(record[0].numpy(), expected)


class LSTMProblem(NamedTuple):
    """Leaves of an LSTM layer: x, h, c, input weights, hidden weights, bias."""

    leaves: list[Tensor]

    @classmethod
    def random(cls, batch: int, frames: int, columns: int, hidden: int) -> "LSTMProblem":
        generator = torch.Generator().manual_seed(batch + 10 * frames)
        shapes = [(batch, frames, columns), (1, batch, hidden), (1, batch, hidden), (4 * hidden, columns)]
        shapes += [(4 * hidden, hidden), (4 * hidden,)]
        leaves = [torch.randn(*shape, generator=generator) for shape in shapes]
        leaves[1].tanh_()
        leaves[4] /= hidden**0.5
        return cls([leaf.requires_grad_() for leaf in leaves])

    def forward(self, dtype: torch.dtype = torch.float32, bits: int = 8, frames: slice = slice(None)) -> list[Tensor]:
        """Outputs and the last state."""
        x, h, c, w_input, w_hidden, bias = self.leaves
        qparams = qparams_of(2.0 / 2 ** (bits - 1), 3, bits), qparams_of(1 / (2 ** (bits - 1) - 1), 0, bits)
        matrices = quantized(w_input, bits), quantized(w_hidden, bits)
        y, state = integer_lstm(x[:, frames], (h, c), *matrices, bias, *qparams, dtype)
        return [y, *state]

    def reference(self, bits: int = 8) -> list[Tensor]:
        """A plain loop that autograd differentiates, in float64."""
        x, h, c, w_input, w_hidden, bias = (leaf.double() for leaf in self.leaves)
        high = 2 ** (bits - 1) - 1
        step = float(torch.tensor(2.0 / (high + 1)))
        inside = torch.round(x / step + 3).clamp(-high - 1, high)
        x = torch.where(inside == torch.round(x / step + 3), x, x.detach())
        x = x + ((inside - 3) * step - x).detach()
        w_input, w_hidden = quantized(w_input, bits).values, quantized(w_hidden, bits).values
        assert w_input is not None
        assert w_hidden is not None
        h, c, outputs = h[0], c[0], []
        for t in range(x.shape[1]):
            rounded = h + (torch.round(h * high) / high - h).detach()
            i, f, g, o = (x[:, t] @ w_input.t() + bias + rounded @ w_hidden.t()).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return [torch.stack(outputs, 1), h[None], c[None]]

    def gradients(self, results: list[Tensor]) -> list[Tensor]:
        torch.manual_seed(1)
        return list(torch.autograd.grad(results, self.leaves, [torch.randn(each.shape).to(each) for each in results]))


@pytest.fixture(params=["kernels", "portable"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(SWITCH, str(int(request.param == "portable")))
    return str(request.param)


SHAPES = [(1, 1, 1, 1), (3, 6, 5, 7), (2, 9, 33, 18)]  # B, T, D, H


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bits", [4, 8])
def test_lstm_outputs_and_gradients_are_those_of_the_loop(path: str, shape: tuple[int, ...], bits: int) -> None:
    problem = LSTMProblem.random(*shape)
    found, expected = problem.forward(bits=bits), problem.reference(bits)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other.float(), rtol=1e-5, atol=1e-5)
    for mine, other in zip(problem.gradients(found), problem.gradients(expected), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


@pytest.mark.skipif(not bfloat16.multiplies("cpu"), reason="this processor would emulate bfloat16: it is not used")
def test_bfloat16_gradients_are_near(path: str) -> None:
    problem = LSTMProblem.random(4, 12, 20, 16)
    exact = problem.gradients(problem.forward())
    near = problem.gradients(problem.forward(torch.bfloat16))
    differences = [float((mine - other).norm() / other.norm()) for mine, other in zip(near, exact, strict=True)]
    assert max(differences) < 0.02
    assert min(differences[3:5]) > 1e-5  # the weights'


def test_paths_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = LSTMProblem.random(5, 30, 20, 24)
    runs = []
    for switch in ("0", "1"):
        monkeypatch.setenv(SWITCH, switch)
        with recorded_accumulators() as record:
            results = problem.forward()
        runs.append([*record, *results])
    torch.testing.assert_close(runs[0][0], runs[1][0], rtol=0, atol=0)
    assert [each.shape for each in runs[0][:2]] == [(30, 5, 96), (30, 5, 96)]
    ties = (runs[0][1] != runs[1][1]).float().mean()  # tanh differs by a unit in the last place
    assert ties < 0.01
    torch.testing.assert_close(runs[0][2], runs[1][2], rtol=0, atol=1e-2)


def test_chunks_batches_and_gradients_change_no_bit() -> None:
    problem = LSTMProblem.random(5, 14, 11, 19)
    whole = problem.forward()
    with torch.no_grad():
        x, h, c, w_input, w_hidden, bias = problem.leaves
        matrices = [quantized(each)._replace(values=None) for each in (w_input, w_hidden)]
        state, parts = (h[:, 2:4], c[:, 2:4]), []
        for chunk in x[2:4].split([1, 8, 5], 1):
            y, state = integer_lstm(chunk, state, *matrices, bias, qparams_of(2.0 / 128, 3), qparams_of(1 / 127))
            parts.append(y)
    assert torch.equal(torch.cat(parts, 1), whole[0][2:4])
    assert torch.equal(state[1], whole[2][:, 2:4])


def test_autocast_changes_no_bit(path: str) -> None:
    problem = LSTMProblem.random(3, 6, 5, 7)
    expected = problem.forward()
    gradients = problem.gradients(expected)
    with torch.autocast("cpu", torch.bfloat16):
        found = problem.forward()
        again = problem.gradients(found)
    for mine, other in zip([*found, *again], [*expected, *gradients], strict=True):
        assert torch.equal(mine, other)


def test_nobody_records_outside_the_block() -> None:
    x, weight = torch.randn(2, 3), quantized(torch.randn(4, 3))
    with recorded_accumulators() as outer:
        integer_linear(x, weight, None, qparams_of(0.1))
        with recorded_accumulators() as inner:
            integer_linear(x, weight, None, qparams_of(0.1))
    integer_linear(x, weight, None, qparams_of(0.1))
    assert (len(outer), len(inner)) == (2, 1)
    assert torch.equal(outer[1], inner[0])


def test_empty_utterance_returns_its_state(path: str) -> None:
    problem = LSTMProblem.random(2, 1, 3, 4)
    y, h, c = problem.forward(frames=slice(0, 0))
    assert y.shape == (2, 0, 4)
    assert torch.equal(h, problem.leaves[1])
    assert torch.equal(c, problem.leaves[2])


class Questions(TorchDispatchMode):
    """Counts the numbers that Python asks tensors for: for each a GPU's whole queue would have to run empty."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("width", [8, 4])
def test_integers_ask_for_no_number(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A symmetric quantizer, forward and backward, as on a GPU."""
    monkeypatch.setenv(SWITCH, "1")
    quantizer = UniformActivations(width)
    quantizer.observe(x := torch.randn(3, 5, 12, requires_grad=True))
    weight = torch.randn(7, 12, requires_grad=True)
    matrix = quantized(weight, 4)
    with Questions() as questions:
        y = integer_linear(x, weight=matrix, bias=None, qparams=device_qparams(quantizer))
        y.square().sum().backward()
        product = integer_product(x, x.transpose(1, 2), device_qparams(quantizer), device_qparams(quantizer))
        product.sum().backward()
    assert questions.count == 0
