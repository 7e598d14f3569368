"""Verdicts: what the difference between two settings shows, refutes, or leaves open.

A claim says that a difference lies below a bound: below 0 is better; below a tenth of the float control's error rate,
a margin stated beforehand, is not worse. It is shown, or refuted, where the bootstrap distribution of the difference
lies on one side of the bound; over the claims of a table by Holm's step-down procedure (Holm 1979, "A simple
sequentially rejective multiple test procedure"), so that the chance of a single false verdict is 5 % for the table.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analysis.differences import Difference
from analysis.text import counted

MARGIN = 0.1
"""Of the control's error rate: what loses less is not worse."""
LEVEL = 0.05
SHOWN, REFUTED, OPEN = "shown", "refuted", "cannot be told"


class Verdict(NamedTuple):
    """On one claim."""

    word: str
    """`shown`, `refuted` or `cannot be told`."""
    utterances: float = np.nan
    """Where it cannot be told: how many utterances would tell, if the difference stayed what it is; NaN: unknown."""

    def __str__(self) -> str:
        if self.word != OPEN or np.isnan(self.utterances):
            return self.word
        return f"{OPEN} ({counted(int(self.utterances), 'utterance')} would)"


def verdicts(gaps: Sequence[Difference], bounds: Sequence[float]) -> list[Verdict]:
    """For every difference whether it lies below its bound; corrected for their number."""
    found = [_open(gap, bound) for gap, bound in zip(gaps, bounds, strict=True)]
    chances = [min(_chances(gap, bound)) for gap, bound in zip(gaps, bounds, strict=True)]
    order = sorted(range(len(gaps)), key=chances.__getitem__)
    for done, which in enumerate(order):
        if not chances[which] <= LEVEL / 2 / (len(order) - done):
            break  # Holm: nor can any that follows be told
        above, below = _chances(gaps[which], bounds[which])
        found[which] = Verdict(SHOWN if above < below else REFUTED)
    return found


def _chances(gap: Difference, bound: float) -> tuple[float, float]:
    """Share of the draws that do not lie below the bound, and of those that do not lie above it; 1 if unknown."""
    if np.isnan(gap.draws).any():
        return 1.0, 1.0
    count = len(gap.draws) + 1
    return (1 + int((gap.draws >= bound).sum())) / count, (1 + int((gap.draws <= bound).sum())) / count


def _open(gap: Difference, bound: float) -> Verdict:
    """An interval narrows with the root of the number of utterances, until it leaves the bound out."""
    distance, half = abs(bound - gap.value), (gap.high - gap.low) / 2
    if not distance > 0 or not half > 0 or not gap.utterances:
        return Verdict(OPEN)
    needed = gap.utterances * (half / distance) ** 2
    return Verdict(OPEN, float(f"{max(needed, gap.utterances):.1e}"))
