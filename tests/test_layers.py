"""Quantizable layers with empty slots are `torch.nn`'s, bit for bit, forward and backward."""

import copy
import pickle
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from qstudy.quant.layers import LSTM, Embedding, Linear, Rate, TiedEmbedding, quantizable
from qstudy.quant.operators import WithoutMatrices

SIZE = st.integers(1, 17)
SEED = st.integers(0, 10_000)


def twins(layer: nn.Module, twin: nn.Module) -> tuple[nn.Module, nn.Module]:
    twin.load_state_dict(layer.state_dict())  # the same names and shapes, too
    return layer, twin


def assert_gradients_equal(ours: nn.Module, twin: nn.Module, outputs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Outputs are equal, and so is every parameter's gradient for a random gradient of all outputs."""
    for mine, other in outputs:
        assert torch.equal(mine, other)
    upstream = [torch.randn(mine.shape) for mine, _ in outputs]
    torch.autograd.backward([mine for mine, _ in outputs], upstream)
    torch.autograd.backward([other for _, other in outputs], upstream)
    for (name, parameter), other in zip(ours.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(parameter.grad, other.grad), name


@given(SIZE, SIZE, st.booleans(), st.lists(st.integers(1, 4), max_size=3), SEED)
def test_linear(inputs: int, outputs: int, bias: bool, batch: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    ours, twin = twins(Linear(inputs, outputs, bias), nn.Linear(inputs, outputs, bias))
    x = torch.randn(*batch, inputs, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    assert_gradients_equal(ours, twin, [(ours(x), twin(other))])
    assert torch.equal(x.grad, other.grad)


@given(SIZE, SIZE, st.integers(1, 4), st.integers(1, 9), st.booleans(), SEED)
def test_lstm(inputs: int, hidden: int, batch: int, frames: int, stateful: bool, seed: int) -> None:
    torch.manual_seed(seed)
    ours, twin = twins(LSTM(inputs, hidden), nn.LSTM(inputs, hidden, batch_first=True))
    x = torch.randn(batch, frames, inputs, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    state = (torch.randn(1, batch, hidden), torch.randn(1, batch, hidden)) if stateful else None
    y, (h, c) = ours(x, state)
    y2, (h2, c2) = twin(other, state)
    assert_gradients_equal(ours, twin, [(y, y2), (h, h2), (c, c2)])
    assert torch.equal(x.grad, other.grad)


@given(SIZE, SIZE, st.lists(st.integers(1, 4), max_size=3), SEED)
def test_embedding(count: int, size: int, shape: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    ours, twin = twins(Embedding(count, size), nn.Embedding(count, size))
    ids = torch.randint(count, tuple(shape))
    assert_gradients_equal(ours, twin, [(ours(ids), twin(ids))])


def test_same_initial_weights() -> None:
    for make, twin in ((lambda: Linear(3, 4), lambda: nn.Linear(3, 4)), (lambda: LSTM(3, 4), lambda: nn.LSTM(3, 4))):
        torch.manual_seed(1)
        ours = make().state_dict()
        torch.manual_seed(1)
        assert all(torch.equal(ours[name], value) for name, value in twin().state_dict().items())


LAYERS = {
    "linear": lambda: Linear(3, 5, rate=Rate(every_ms=30.0)),
    "without bias": lambda: Linear(3, 5, bias=False),
    "embedding": lambda: Embedding(7, 3, Rate(per_label=1)),
    "tied": lambda: TiedEmbedding(7, 3),
    "lstm": lambda: LSTM(3, 5),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_shape_counts_what_is_stored(kind: str) -> None:
    layer = LAYERS[kind]()
    shape = layer.shape("name")
    bias = layer.bias_vector()
    assert shape.matrices == tuple(tuple(matrix.shape) for matrix in layer.matrices())
    assert shape.vectors == (0 if bias is None else bias.numel())
    assert Rate(shape.every_ms, shape.per_label, shape.share, shape.frames, shape.after_end) == layer.rate


@pytest.mark.parametrize("kind", LAYERS)
def test_set_float_is_the_inverse(kind: str) -> None:
    layer = LAYERS[kind]()
    other = LAYERS[kind]()
    other.set_float([matrix.detach() for matrix in layer.matrices()], layer.bias_vector())
    x = torch.tensor([[1, 2]]) if kind in ("embedding", "tied") else torch.randn(2, 4, 3)
    first, second = layer(x), other(x)
    torch.testing.assert_close(first, second)  # an LSTM's two biases became one


@pytest.mark.parametrize("kind", LAYERS)
def test_dropped_matrices_are_gone(kind: str) -> None:
    layer = LAYERS[kind]()
    sizes = {matrix.numel() for matrix in layer.matrices()}
    layer.drop_matrices()
    held = [*layer.parameters(), *layer.buffers(), *(t for t in getattr(layer, "_flat_weights", []) if t is not None)]
    assert not sizes & {tensor.numel() for tensor in held}
    layer.to("cpu")
    copy.deepcopy(layer)


@pytest.mark.parametrize("kind", LAYERS)
def test_pickled_as_torchs_are(kind: str) -> None:
    layer = LAYERS[kind]()
    again = pickle.loads(pickle.dumps(layer))
    assert type(again) is type(layer)
    assert again.shape("a") == layer.shape("a")
    assert all(torch.equal(*pair) for pair in zip(layer.parameters(), again.parameters(), strict=True))


def test_an_own_layer_says_all_that_is_asked_of_it() -> None:
    class Shapeless(WithoutMatrices):
        """What it costs nobody knows."""

    with pytest.raises(TypeError, match=r"abstract.* shape"):
        Shapeless()


def test_layers_by_name() -> None:
    model = nn.Sequential(Linear(2, 3), nn.Tanh(), nn.Sequential(LSTM(3, 4)), nn.Linear(4, 5))
    assert list(quantizable(model)) == ["0", "2.0"]
