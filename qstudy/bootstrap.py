"""Groups of utterances that a bootstrap draws together, because what they share makes their errors alike.

A bootstrap over utterances takes them for independent. Where they share a speaker or recordings, its intervals are
too narrow, and whole groups have to be drawn (Liu and Peng 2020, "Statistical testing on ASR performance via
blockwise bootstrap", arXiv 1912.09508). Of few groups the spread is known badly, so that percentiles are too narrow
as well; by how much, Student's t distribution says (Hesterberg 2015, "What teachers should know about the bootstrap",
arXiv 1411.5279).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def numbered(names: Sequence[str]) -> list[int]:
    """The number of each name, from 0 in the order in which they first come."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [numbers[name] for name in names]


def count_groups(groups: Sequence[int] | NDArray[np.integer] | None) -> int:
    """How many groups can be drawn; 0: there are none, or a single one, which tells nothing of others."""
    number = 0 if groups is None else len(set(groups))
    return number if number > 1 else 0


def by_group(counts: NDArray[np.floating], groups: NDArray[np.integer]) -> NDArray[np.floating]:
    """Sums over the utterances of every group.

    Args:
        counts: (N,) or (S, N) of each utterance.
        groups: (N,) the number of each one's group.

    Returns:
        (G,) or (S, G).
    """
    names, places = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), *counts.shape[:-1]), counts.dtype)
    np.add.at(sums, places, counts.T)
    return sums.T


def widened(
    draws: NDArray[np.floating], value: float | NDArray[np.floating], groups: int, *salt: int
) -> NDArray[np.floating]:
    """Bootstrap draws as far from the value as so few groups ask for.

    A draw's distance is multiplied by a random factor, so that a normal distribution becomes Student's with one degree
    of freedom less than there are groups, and grows by the root of G / (G - 1), for which draws are too narrow.

    Args:
        draws: (S,) of a mean over groups.
        value: the mean itself, or (S,) those that the draws lie around.
        groups: G, at least 2.
        salt: other factors for other numbers.
    """
    spread = np.random.default_rng([groups, *salt]).chisquare(groups - 1, len(draws))
    return value + (draws - value) * np.sqrt(groups / spread)
