"""What was made of a matrix is used again until it or its quantizer changes, and never where a gradient is wanted."""

import pytest
import torch
from torch import Tensor, nn

import qstudy
from qstudy.quant.arithmetics.fake import WeightCache


def test_it_is_made_anew_when_something_changed() -> None:
    weight, quantizer = nn.Parameter(torch.ones(2, 3)), nn.Linear(1, 1)
    cache: WeightCache[Tensor] = WeightCache()

    def get(index: int = 0) -> Tensor:
        return cache.get(index, weight, quantizer, lambda matrix: matrix.detach().clone())

    with torch.no_grad():
        first = get()
        assert get() is first
        assert get(1) is not first
        weight.add_(1)
        second = get()
        assert torch.equal(second, 2 * torch.ones(2, 3))
        assert get() is second
        quantizer.bias.add_(1)
        assert get() is not second
        quantizer.weight.data = torch.ones(1, 1)
        third = get()
        assert get() is third
    assert get() is not get()


def test_a_step_with_gradients_drops_it() -> None:
    """A fused optimizer changes a matrix, but not its version; between two evaluations gradients were wanted."""
    weight, quantizer = nn.Parameter(torch.ones(2, 3)), nn.Linear(1, 1)
    cache: WeightCache[Tensor] = WeightCache()

    def get() -> Tensor:
        return cache.get(0, weight, quantizer, lambda matrix: matrix * 1)

    with torch.no_grad():
        get()
    optimizer = torch.optim.AdamW([weight], lr=0.5, fused=True)
    get().sum().backward()
    optimizer.step()
    with torch.no_grad():
        assert torch.equal(get(), weight)


def test_another_matrix_at_the_same_address_is_another() -> None:
    """Of tensors that come and go, as `torch.func.functional_call` has them, the allocator reuses the memory."""
    quantizer, cache = nn.Linear(1, 1), WeightCache[Tensor]()
    with torch.no_grad():
        for value in range(20):
            found = cache.get(0, torch.full((64, 64), float(value)), quantizer, lambda matrix: matrix.clone())
            assert (found == value).all()


@pytest.mark.parametrize("policy", ["native_int", "fake_qat", "accelerator_aware"])
def test_no_policy_keeps_weights_of_before_a_fused_step(policy: str) -> None:
    torch.manual_seed(0)
    layer, x = nn.Sequential(nn.Linear(16, 8)), torch.randn(4, 16)
    layer = qstudy.quantize(layer, {"name": policy, "layers": {"*": {"weight": 8, "activation": 8}}})
    qstudy.calibrate(layer, [x])
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
    with torch.no_grad():
        layer.eval()(x)
    layer.train()(x).square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        found = layer.eval()(x)
        for parameter in layer.parameters():
            parameter.add_(0)  # says that it changed
        assert torch.equal(found, layer(x))
