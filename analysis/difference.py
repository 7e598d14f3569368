"""How much two runs differ in word error rate, and how sure one can be of it."""

from dataclasses import dataclass

import numpy as np

from analysis.records import Edits, Run
from analysis.text import DASH

DRAWS = 2000


@dataclass(frozen=True)
class Difference:
    """Word error rate of one run minus that of another, as fractions."""

    value: float
    low: float | None = None
    """Lower end of its 95 % interval; None: nothing is known of it."""
    high: float | None = None

    @property
    def lower(self) -> bool:
        """Whether the first run is better beyond doubt."""
        return self.high is not None and self.high < 0

    @property
    def higher(self) -> bool:
        """Whether it is worse beyond doubt."""
        return self.low is not None and self.low > 0

    @property
    def words(self) -> tuple[str, str]:
        """In percentage points: `−0.12`, `[−0.30, 0.05]`."""
        ends = "" if self.low is None or self.high is None else f"[{points(self.low)}, {points(self.high)}]"
        return points(self.value), ends


def points(fraction: float | None) -> str:
    """A difference of rates in percentage points with a sign."""
    if fraction is None:
        return DASH
    text = f"{100 * fraction:+.2f}" if abs(fraction) < 0.09995 else f"{100 * fraction:+.1f}"
    return "0" if float(text) == 0 else text.replace("-", "−")


def difference(run: Run, other: Run, split: str) -> Difference:
    """The difference on the set `split`, both runs scored on it.

    Where both records tell the errors of every utterance, the interval is a bootstrap over utterances, the same draw
    for both runs (Bisani and Ney 2004): what is hard for both cancels out. Else it is made of the ends of the two
    intervals, which is wider than need be.
    """
    first, second = run.scores[split], other.scores[split]
    value = first.wer - second.wer
    mine, theirs = run.edits.get(split), other.edits.get(split)
    if mine and theirs and mine.words == theirs.words and mine.words:
        return Difference(value, *_paired(mine, theirs))
    if first.interval is None or second.interval is None:
        return Difference(value)
    return Difference(value, first.interval[0] - second.interval[1], first.interval[1] - second.interval[0])


def _paired(mine: Edits, theirs: Edits, seed: int = 0) -> tuple[float, float]:
    gaps = np.array(mine.errors, dtype=np.float64) - np.array(theirs.errors, dtype=np.float64)
    words = np.array(mine.words, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(len(words), size=(DRAWS, len(words)))
    rates = gaps[drawn].sum(1) / np.maximum(words[drawn].sum(1), 1)
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)
