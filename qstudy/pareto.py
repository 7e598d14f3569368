"""Pareto fronts of points whose numbers are all to be small, and the volume that they leave behind them."""

import heapq
from collections.abc import Sequence

Point = tuple[float, ...]


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the pairs that no other pair beats, by the first coordinate.

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


def unbeaten(points: Sequence[Point]) -> list[int]:
    """The same of points with any number of coordinates, in their order; slower."""
    order = sorted(range(len(points)), key=lambda index: (*points[index], index))  # who beats another comes before it
    kept: list[int] = []
    for index in order:
        if not any(_covers(points[other], points[index]) for other in kept):
            kept.append(index)
    return sorted(kept)


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The volume of all that some point beats and that itself beats the reference; 0 without points inside.

    Slices along the last coordinate, one after the other; meant for a few hundred points of two or three coordinates.
    """
    inside = [point for point in points if all(a < b for a, b in zip(point, reference, strict=True))]
    if not inside:
        return 0.0
    if len(reference) == 1:
        return reference[0] - min(inside)[0]
    if len(reference) == 2:
        return _area(inside, reference)
    ends = sorted({point[-1] for point in inside})
    volume = 0.0
    for end, following in zip(ends, [*ends[1:], reference[-1]], strict=True):
        below = [point[:-1] for point in inside if point[-1] <= end]
        volume += (following - end) * hypervolume(below, reference[:-1])
    return volume


def by_volume(points: Sequence[Point]) -> list[int]:
    """Indices of the unbeaten points, each next one that which adds most to the volume of those before it."""
    left, chosen = unbeaten(points), list[int]()
    if not left:
        return []
    spans = list(zip(*(points[index] for index in left), strict=True))
    sizes = [(min(one), (max(one) - min(one)) or 1.0) for one in spans]  # each coordinate from 0 to 1
    scaled = {i: tuple((v - least) / size for v, (least, size) in zip(points[i], sizes, strict=True)) for i in left}
    reference = (1.1,) * len(sizes)
    volume = 0.0
    # What a point adds can but shrink as others are chosen: an old gain is a bound, and few need to be looked at again.
    bounds = [(-float("inf"), index) for index in left]
    while bounds:
        _, index = heapq.heappop(bounds)
        gain = hypervolume([scaled[each] for each in [*chosen, index]], reference) - volume
        if not bounds or (-gain, index) <= bounds[0]:
            chosen.append(index)
            volume += gain
        else:
            heapq.heappush(bounds, (-gain, index))
    return chosen


def _area(points: Sequence[Point], reference: Point) -> float:
    """`hypervolume` in two coordinates: strips, from the least first coordinate on."""
    area, least = 0.0, reference[1]
    for x, y in sorted(points):
        if y < least:
            area, least = area + (reference[0] - x) * (least - y), y
    return area


def _covers(one: Point, other: Point) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))
