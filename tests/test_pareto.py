"""The Pareto front, and the volume behind it."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstudy.pareto import by_volume, front, hypervolume, unbeaten


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=12))
def test_the_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    def beaten(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return b[0] <= a[0] and b[1] <= a[1] and b != a

    kept = [points[index] for index in front(points)]
    assert sorted(kept) == sorted({a for a in points if not any(beaten(a, b) for b in points)})
    assert kept == sorted(kept)


TRIPLES = st.lists(st.tuples(*[st.integers(0, 5)] * 3), max_size=8)


@given(TRIPLES)
def test_the_volume_is_that_of_the_cells_that_some_point_beats(points: list[tuple[float, ...]]) -> None:
    cells = itertools.product(range(4), repeat=3)
    beaten = sum(any(all(a <= b for a, b in zip(one, cell, strict=True)) for one in points) for cell in cells)
    assert hypervolume(points, (4, 4, 4)) == beaten


@given(TRIPLES)
def test_the_order_by_volume_is_one_of_the_unbeaten(points: list[tuple[float, ...]]) -> None:
    kept = unbeaten(points)
    assert sorted(by_volume(points)) == kept
    assert {points[index] for index in kept} == {a for a in points if not any(_beats(b, a) for b in points)}


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def test_what_adds_most_comes_first() -> None:
    assert by_volume([(0, 10), (1, 1), (10, 0), (2, 0.9), (3, 3)])[0] == 1


@pytest.mark.parametrize("coordinates", [2, 3])
def test_the_order_by_volume_is_the_greedy_one(coordinates: int) -> None:
    dice = random.Random(coordinates)
    points = [tuple(dice.random() for _ in range(coordinates)) for _ in range(60)]
    order = by_volume(points)
    spans = [(min(one), max(one)) for one in zip(*(points[index] for index in order), strict=True)]
    scaled = [
        tuple((value - low) / (high - low) for value, (low, high) in zip(point, spans, strict=True)) for point in points
    ]

    def volume(chosen: list[int]) -> float:
        return hypervolume([scaled[index] for index in chosen], (1.1,) * coordinates)

    for count in range(len(order)):
        best = max(volume([*order[:count], index]) for index in order[count:])
        assert volume(order[: count + 1]) == pytest.approx(best, rel=1e-9)


def test_hundreds_of_points_are_soon_in_order() -> None:
    angles = [index / 199 * math.pi / 2 for index in range(200)]
    assert len(by_volume([(1 - math.sin(angle), 1 - math.cos(angle)) for angle in angles])) == 200
