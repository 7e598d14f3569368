"""Which members of a space to judge next, so that few show where its front lies."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from qstudy.pareto import Point, unbeaten
from qstudy.sweep.screening.allocations import Member

RIDGE = 1e-3
"""Keeps values that no judged member has where the others are."""


def explore(
    costs: Mapping[Member, Point], starts: Sequence[Member], judge: Callable[[Member], float], most: int
) -> dict[Member, float]:
    """Judge the starts, then, again and again, those that a sum over places foretells on the front of error and costs.

    When nothing new is foretold there, it is the turn of the front of all that is left.

    Args:
        costs: what every member costs.
        starts: at least one; outside `costs`, too: they teach the sum, and are no result.
        judge: the error of a member, above 0.
        most: members to judge.

    Returns:
        The errors of those that were judged, in that order.
    """
    judged: dict[Member, float] = {}
    wanted: Sequence[Member] = starts
    while wanted and len(judged) < most:
        for member in wanted[: most - len(judged)]:
            judged[member] = judge(member)
        wanted = _foretold(costs, judged, judged) or _foretold(costs, judged, {})
    return judged


def foretell(members: Sequence[Member], judged: Mapping[Member, float]) -> list[float]:
    """The errors of members as those of others say: their logarithm is a sum over places."""
    features, targets = _one_hot([*judged, *members]), np.log(list(judged.values()))
    known, mean = features[: len(judged)], targets.mean()
    weights = np.linalg.solve(known.T @ known + RIDGE * np.eye(known.shape[1]), known.T @ (targets - mean))
    found: list[float] = np.exp(features[len(judged) :] @ weights + mean).tolist()
    return found


def on_front(costs: Mapping[Member, Point], errors: Mapping[Member, float]) -> list[Member]:
    """Of the members with costs and errors those that no other beats in both."""
    members = [member for member in costs if member in errors]
    return [members[index] for index in unbeaten([(errors[one], *costs[one]) for one in members])]


def _foretold(
    costs: Mapping[Member, Point], judged: Mapping[Member, float], rivals: Mapping[Member, float]
) -> list[Member]:
    """Those unknown that would be on the front beside the rivals."""
    unknown = [member for member in costs if member not in judged]
    if not unknown:
        return []
    errors = {**rivals, **dict(zip(unknown, foretell(unknown, judged), strict=True))}
    return [member for member in on_front(costs, errors) if member not in judged]


def _one_hot(members: Sequence[Member]) -> NDArray[np.float64]:
    """(members, values of all places)."""
    columns = np.array(members)
    return np.concatenate([one[:, None] == np.unique(one) for one in columns.T], axis=1).astype(np.float64)
