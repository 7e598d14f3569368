"""N-gram models from texts: interpolated modified Kneser-Ney smoothing.

Source: Chen & Goodman 1998, "An empirical study of smoothing techniques for language modeling", section 4.1.6; in the
form of Heafield et al. 2013, "Scalable modified Kneser-Ney language model estimation", whose program is `lmplz`. Unlike
there, nothing is left for unknown labels: a recognizer's labels are all known.
"""

from collections.abc import Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qstudy.errors import UserError
from qstudy.model.arpa import NEVER, Ngrams, Order

FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where texts are too few, or too much alike, for estimates (those of `lmplz --discount_fallback`)."""
Keys = NDArray[np.int64]
"""N-grams, sorted; the codes of each (0: end, V: start of a text) are the digits of one number in base V + 1."""


class Counts(NamedTuple):
    """The n-grams of one order."""

    keys: Keys
    counts: NDArray[np.int64]
    """How often; below the highest order, after how many different labels."""


class Smoothed(NamedTuple):
    """What smoothing makes of them."""

    keys: Keys
    probabilities: NDArray[np.float64]
    """Of the last label after the others."""
    contexts: Keys
    """The n-grams of one order less that are followed by anything."""
    weights: NDArray[np.float64]
    """Back-off weights of the contexts: what their n-grams leave to the next lower order."""


def estimate(texts: Sequence[Sequence[int]], labels: int, order: int) -> Ngrams:
    """Learn an n-gram model.

    Args:
        texts: labels 1 .. V - 1 of each.
        labels: V, with blank.
        order: of the longest n-grams.

    Raises:
        UserError: there is no text, or n-grams are too long to be numbered.
    """
    if not texts:
        raise UserError("--text: there is no text to learn from.")
    base = labels + 1
    if base**order >= 2**63:
        raise UserError(f"--ngram: order {order} is too high for {labels} labels; lower it.")
    line = np.fromiter(chain.from_iterable((labels, *text, 0) for text in texts), np.int64)
    smoothed: list[Smoothed] = []
    for level in _levels([_count(line, n, labels) for n in range(1, order + 1)], base):
        smoothed.append(_smooth(level, smoothed, base))
    orders = [_as_order(smoothed, index, base) for index in range(order)]
    return Ngrams(labels, [_with_all_labels(orders[0], smoothed, labels), *orders[1:]], None)


def _count(line: Keys, n: int, labels: int) -> Counts:
    """All n-grams of texts that follow each other in `line`; the start of a text only begins one, and alone is none."""
    count = max(len(line) - n + 1, 0)
    keys, within = np.zeros(count, np.int64), np.ones(count, bool)
    for place in range(n):
        codes = line[place : place + count]
        keys = keys * (labels + 1) + codes
        if place or n == 1:
            within &= codes != labels
    return Counts(*np.unique(keys[within], return_counts=True))


def _levels(raw: Sequence[Counts], base: int) -> list[Counts]:
    """Counts that count contexts below the highest order: after how many different labels an n-gram comes.

    Before the start of a text nothing comes: what begins there keeps its own count.
    """
    levels = []
    for n, (own, longer) in enumerate(pairwise(raw), 1):
        counts = own.counts.copy()
        ends, different = np.unique(longer.keys % base**n, return_counts=True)
        counts[np.searchsorted(own.keys, ends)] = different
        levels.append(Counts(own.keys, counts))
    return [*levels, raw[-1]]


def _smooth(level: Counts, lower: Sequence[Smoothed], base: int) -> Smoothed:
    """Subtract discounts, and give what they leave of each context to its next lower order."""
    contexts, first, context = np.unique(level.keys // base, return_index=True, return_inverse=True)
    totals = np.add.reduceat(level.counts, first)
    discounts = np.array([0.0, *_discounts(level.counts)])[np.minimum(level.counts, 3)]
    weights = np.add.reduceat(discounts, first) / totals
    before = np.full(1, 1 / (base - 1))  # order 0: every label, and the end
    if lower:
        ends = level.keys % base ** len(lower)
        before = lower[-1].probabilities[np.searchsorted(lower[-1].keys, ends)]
    probabilities = (level.counts - discounts) / totals[context] + weights[context] * before
    return Smoothed(level.keys, probabilities, contexts, weights)


def _discounts(counts: NDArray[np.int64]) -> tuple[float, ...]:
    """What is subtracted from counts of 1, of 2, and of 3 and more (Chen & Goodman 1998, equation 17)."""
    n1, n2, n3, n4 = (int((counts == count).sum()) for count in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return FALLBACK
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return found if all(0 < each <= count for count, each in enumerate(found, 1)) else FALLBACK


def _as_order(smoothed: Sequence[Smoothed], index: int, base: int) -> Order:
    """Of order `index + 1`, in logarithms; the next higher order knows the back-off weights."""
    own = smoothed[index]
    backoff = np.ones(len(own.keys))
    if index + 1 < len(smoothed):
        longer = smoothed[index + 1]
        known = np.isin(longer.contexts, own.keys)  # the start of a text is not
        backoff[np.searchsorted(own.keys, longer.contexts[known])] = longer.weights[known]
    codes = np.stack([own.keys // base**place % base for place in reversed(range(index + 1))], 1)
    return Order(codes, np.log10(own.probabilities), np.log10(backoff))


def _with_all_labels(order: Order, smoothed: Sequence[Smoothed], labels: int) -> Order:
    """The 1-grams with those labels that no text has, and with the start of a text, which follows nothing."""
    unseen = np.setdiff1d(np.arange(labels), order.codes)
    left = smoothed[0].weights[0] / labels
    start = smoothed[1].weights[smoothed[1].contexts == labels][0] if len(smoothed) > 1 else 1.0
    return Order(
        np.concatenate([order.codes, unseen[:, None], [[labels]]]),
        np.concatenate([order.log10, np.full(len(unseen), np.log10(left)), [NEVER]]),
        np.concatenate([order.backoff, np.zeros(len(unseen)), [np.log10(start)]]),
    )
