"""The Pareto front, and the volume behind it."""

import itertools

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
