"""What was made of a matrix is used again until it or its quantizer changes, and never where a gradient is wanted."""

import torch
from torch import Tensor, nn

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
