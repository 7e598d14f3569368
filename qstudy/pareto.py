"""The Pareto front of pairs of numbers that are both to be small."""

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other point beats, by the first coordinate.

    A point is beaten by one that is no larger in either coordinate and smaller in one. Of equal points the first stays.
    """
    order = sorted(range(len(points)), key=lambda index: (*points[index], index))
    kept: list[int] = []
    lowest = float("inf")
    for index in order:
        if points[index][1] < lowest:
            kept.append(index)
            lowest = points[index][1]
    return kept
