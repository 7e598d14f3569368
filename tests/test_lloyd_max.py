"""Lloyd-Max: the textbook's distortions, and a fixed point on any data."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qstudy.quant.quantizers.lloyd_max import lloyd_max

GAUSSIAN = {2: 0.3634, 4: 0.1175, 8: 0.03454, 16: 0.009497}  # Max 1960
LAPLACE = {2: 0.5, 4: 0.1762, 8: 0.0545, 16: 0.0154}  # Jayant and Noll 1984, "Digital Coding of Waveforms"
CASES = [("gaussian", K, d) for K, d in GAUSSIAN.items()] + [("laplace", K, d) for K, d in LAPLACE.items()]

VALUES = st.lists(st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, 1.0, -1.0, 0.5]), min_size=1, max_size=200)


def quantiles(source: str, count: int = 50_000) -> Tensor:
    """Equally probable points of a source with unit variance: an exact stand-in for its density."""
    share = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    if source == "gaussian":
        return torch.special.ndtri(share)
    return -torch.sign(share - 0.5) * torch.log1p(-2 * (share - 0.5).abs()) / 2**0.5


def distortion(values: Tensor, centroids: Tensor) -> float:
    nearest = torch.bucketize(values.double(), (centroids[1:] + centroids[:-1]) / 2)
    return float((values - centroids[nearest]).square().mean())


@pytest.mark.parametrize(("source", "levels", "published"), CASES)
def test_textbook_distortions(source: str, levels: int, published: float) -> None:
    values = quantiles(source)
    centroids = lloyd_max(values, levels)
    assert abs(distortion(values, centroids) - published) < min(1e-3, 0.01 * published)
    torch.testing.assert_close(centroids, -centroids.flip(0), atol=1e-3, rtol=0)


def test_many_levels_follow_panter_and_dite() -> None:
    """Far from few levels, the distortion of a Gaussian is sqrt(3) * pi / 2 / K**2."""
    values = quantiles("gaussian")
    centroids = lloyd_max(values, 128)
    assert distortion(values, centroids) == pytest.approx(3**0.5 * torch.pi / 2 / 128**2, rel=0.02)


@given(VALUES, st.integers(1, 16))
def test_a_fixed_point_on_any_data(values: list[float], levels: int) -> None:
    """Every centroid is the mean of the values nearest to it, and there are as many as the data allow."""
    x = torch.tensor(values, dtype=torch.float64)
    centroids = lloyd_max(x, levels)
    assert len(centroids) == min(levels, len(set(values)))
    assert (centroids.diff() > 0).all()
    assert x.min() <= centroids[0]
    assert centroids[-1] <= x.max()
    assert distortion(x, centroids) <= float(x.var(correction=0)) * (1 + 1e-9) + 1e-12


def test_conditional_means() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40_000, generator=generator).double() ** 3  # heavy tails
    centroids = lloyd_max(values, 32)
    nearest = torch.bucketize(values, (centroids[1:] + centroids[:-1]) / 2)
    means = torch.stack([values[nearest == k].mean() for k in range(32)])
    torch.testing.assert_close(means, centroids, atol=1e-6, rtol=1e-6)


def test_duplicates_count_as_often_as_they_occur() -> None:
    values = torch.tensor([0.0] * 90 + [1.0] * 9 + [2.0])
    torch.testing.assert_close(lloyd_max(values, 2), torch.tensor([0.0, 1.1], dtype=torch.float64))


@pytest.mark.parametrize("values", [torch.zeros(0), torch.tensor([1.0, float("nan")]), torch.tensor([float("inf")])])
def test_values_that_have_no_mean(values: Tensor) -> None:
    with pytest.raises(ValueError, match="finite"):
        lloyd_max(values, 4)
