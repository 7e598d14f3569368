"""Verdicts: what the difference between two settings shows, refutes, or leaves open.

A claim says that a difference lies below a bound: below 0 is better; below a tenth of the float control's error rate,
a margin stated beforehand, is not worse. It is shown, or refuted, where the bootstrap distribution of the difference
lies on one side of the bound; over the claims of a table by Holm's step-down procedure (Holm 1979, "A simple
sequentially rejective multiple test procedure"), so that the chance of a single false verdict is 5 % for the table.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from analysis.differences import NORMAL, Difference
from analysis.text import counted

MARGIN = 0.1
"""Of the control's error rate: what loses less is not worse."""
LEVEL = 0.05
TOO_MANY = 100
"""Times what was drawn from: if it took more to tell a difference from a bound, it lies at the bound."""
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


def verdicts(gaps: Sequence[Difference], bounds: Sequence[float]) -> list[Verdict]:
    """For every difference whether it lies below its bound; corrected for their number."""
    found, claims = [Verdict(OPEN)] * len(gaps), list(zip(gaps, bounds, strict=True))
    chances = [_chances(*claim) for claim in claims]
    left = sorted(range(len(gaps)), key=lambda which: min(chances[which]))
    while left and min(chances[left[0]]) <= _level(left):
        above, below = chances[which := left.pop(0)]
        found[which] = Verdict(SHOWN if above < below else REFUTED)
    for which in left:
        gap, bound = claims[which]
        found[which] = Verdict(OPEN, _needed(gap, bound, _level(left)), "group" if gap.grouped else "utterance")
    return found


def _level(left: Sequence[int]) -> float:
    """Of the next one of these claims, on either side."""
    return LEVEL / 2 / len(left)


def _chances(gap: Difference, bound: float) -> tuple[float, float]:
    """Share of the draws that do not lie below the bound, and of those that do not lie above it; 1 if unknown."""
    if np.isnan(gap.draws).any():
        return 1.0, 1.0
    count = len(gap.draws) + 1
    return (1 + int((gap.draws >= bound).sum())) / count, (1 + int((gap.draws <= bound).sum())) / count


def _needed(gap: Difference, bound: float, level: float) -> float:
    """How many utterances, or groups, would tell at this level, and seeds as many times more: draws narrow with the
    root of their number. How far they lie apart, their interval says: of few seeds, the deviation has no bound."""
    distance, deviation = abs(bound - gap.value), (gap.high - gap.low) / (2 * NORMAL)
    if not distance > 0 or not deviation > 0 or not gap.drawn:
        return np.nan
    needed = gap.drawn * (NormalDist().inv_cdf(1 - level) * deviation / distance) ** 2
    if needed > TOO_MANY * gap.drawn:
        return np.inf
    return float(f"{needed:.1e}") if needed > gap.drawn else np.nan
