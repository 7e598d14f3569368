"""The Pareto front."""

from hypothesis import given
from hypothesis import strategies as st

from qstudy.pareto import front


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=12))
def test_the_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    def beaten(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return b[0] <= a[0] and b[1] <= a[1] and b != a

    kept = [points[index] for index in front(points)]
    assert sorted(kept) == sorted({a for a in points if not any(beaten(a, b) for b in points)})
    assert kept == sorted(kept)
