"""Verdicts: what the difference between two settings shows, refutes, or leaves open.

A claim says that a difference lies below 0: that one is better; or, by what it lies beyond a tenth of the float
control's error rate, a margin stated beforehand, that it is not worse. It is shown, or refuted, where the bootstrap
distribution of the difference lies on one side of 0; over the claims of a table by Holm's step-down procedure (Holm
1979, "A simple sequentially rejective multiple test procedure"), so that the chance of a single false verdict is 5 %
for the table.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from analysis.differences import DRAWS, NORMAL, Difference
from analysis.text import counted

MARGIN = 0.1
"""Of the control's error rate: what loses less is not worse."""
LEVEL = 0.05
TOO_MANY = 100
"""Times what was drawn from: if it took more to tell a claim, it lies at its bound."""
SHOWN, REFUTED, OPEN = "shown", "refuted", "cannot be told"


class Verdict(NamedTuple):
    """On one claim."""

    word: str
    """`shown`, `refuted` or `cannot be told`."""
    needed: float = np.nan
    """Where it cannot be told: how many would tell, if the difference stayed what it is; infinite: it lies at the
    bound; NaN: unknown."""
    of: str = "utterance"
    """What was counted: utterances, or groups of them."""

    def __str__(self) -> str:
        if self.word != OPEN or np.isnan(self.needed):
            return self.word
        if np.isinf(self.needed):
            return f"{OPEN} (at the bound)"
        return f"{OPEN} ({counted(int(self.needed), self.of)} would)"


def not_worse(gap: Difference) -> Difference:
    """What lies below 0 where a difference is less than the margin."""
    return gap.beyond(MARGIN)


def verdicts(gaps: Sequence[Difference]) -> list[Verdict]:
    """For every difference whether it lies below 0; corrected for their number."""
    found = [Verdict(OPEN)] * len(gaps)
    chances = [_chances(gap) for gap in gaps]
    left = sorted(range(len(gaps)), key=lambda which: min(chances[which]))
    while left and min(chances[left[0]]) <= _level(left):
        above, below = chances[which := left.pop(0)]
        found[which] = Verdict(SHOWN if above < below else REFUTED)
    for which in left:
        needed = _needed(gaps[which], _level(left))
        found[which] = Verdict(OPEN, needed, "group" if gaps[which].grouped else "utterance")
    return found


def _level(left: Sequence[int]) -> float:
    """Of the next one of these claims, on either side."""
    return LEVEL / 2 / len(left)


def caution(claims: int) -> str:
    """What a table of so many claims has to say; empty where its draws are enough to tell any."""
    most = int((DRAWS + 1) * LEVEL / 2)
    if claims <= most:
        return ""
    return f" Of more than {most} claims at once no draws tell any: report on fewer settings."


def _chances(gap: Difference) -> tuple[float, float]:
    """Share of the draws that do not lie below 0, and of those that do not lie above it; 1 if unknown."""
    if np.isnan(gap.draws).any():
        return 1.0, 1.0
    count = len(gap.draws) + 1
    return (1 + int((gap.draws >= 0).sum())) / count, (1 + int((gap.draws <= 0).sum())) / count


def _needed(gap: Difference, level: float) -> float:
    """How many utterances, or groups, would tell at this level, and seeds as many times more: draws narrow with the
    root of their number. How far they lie apart, their interval says: of few seeds, the deviation has no bound."""
    distance, deviation = abs(gap.value), (gap.high - gap.low) / (2 * NORMAL)
    if not distance > 0 or not deviation > 0 or not gap.drawn:
        return np.nan
    needed = gap.drawn * (NormalDist().inv_cdf(1 - level) * deviation / distance) ** 2
    if needed > TOO_MANY * gap.drawn:
        return np.inf
    if needed <= gap.drawn:
        return np.nan
    unit = max(1.0, 10.0 ** (math.floor(math.log10(needed)) - 1))
    return math.ceil(needed / unit) * unit  # to two digits, and never to fewer than were not enough
