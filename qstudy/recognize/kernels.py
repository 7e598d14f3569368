"""Loops of the beam searches, compiled: what becomes of hypotheses, given the scores of their next labels.

Hypotheses are records (`HYPOTHESIS`) of one array, those of an utterance side by side. Arguments that all share:
`logits` (N, V) float32, the joiner's of N hypotheses; `language` (N, V) or (N, 1) float32, what language models add;
`reward`, what every label adds. Scores are doubles, so that the better of two logits stays the better, whatever the
score that it is added to. Of equal scores the blank comes first, then the lower label, as in `argmax`.
"""

import math
from typing import Any

import numpy as np

from qstudy.jit import compiled
from qstudy.model.predictors import BLANK

HYPOTHESIS = np.dtype(
    [
        ("score", np.float64),  # natural logarithm
        ("path", np.float64),  # the part of it that its likeliest alignment has, whose times its nodes tell
        ("key", np.int64),  # of its labels: equal labels, equal key
        ("utterance", np.int64),
        ("frame", np.int64),  # the next one that it sees
        ("emitted", np.int64),  # labels in that frame
        ("last", np.int64),  # label; BLANK: none
        ("prefix", np.int64),  # key without the last label
        ("node", np.int64),  # in the tree of labels; of a hypothesis that was just extended, its parent's
        ("row", np.int64),  # in the contexts; likewise
    ]
)
NONE = -math.inf
ODD = np.int64(-7046029254386353131)  # 2^64 over the golden ratio
HALF = np.int64(0xFFFFFFFF)


@compiled()
def extended(key: int, label: int) -> Any:
    """The key of a label sequence with one more label; two sequences have the same by chance once in 2^64."""
    mixed = np.int64(key + label + np.int64(1)) * ODD
    return mixed ^ ((mixed >> np.int64(32)) & HALF)


@compiled()
def log_add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    high, low = max(a, b), min(a, b)
    return high if low == NONE else high + math.log1p(math.exp(low - high))


@compiled()
def log_sum(logits: Any) -> float:
    """Logarithm of the sum of exp of (V,); NaN where one is NaN or infinitely large, or all are infinitely small."""
    high = np.float64(logits.max())
    total = 0.0
    for logit in logits:
        total += math.exp(logit - high)
    return high + math.log(total)


@compiled()
def extend(new: Any, parent: Any, score: float, label: int) -> None:
    """Let the record `new` be `parent` with a label."""
    new.path = parent.path + (score - parent.score)
    new.score, new.utterance, new.frame = score, parent.utterance, parent.frame
    new.key, new.prefix, new.last = extended(parent.key, label), parent.key, label
    new.emitted, new.node, new.row = parent.emitted + 1, parent.node, parent.row


@compiled()
def best_labels(
    first: int, end: int, hypotheses: Any, logits: Any, language: Any, reward: float, sums: Any, best: Any, count: int
) -> int:
    """Insert the labels of hypotheses [first, end) into the sorted `best`, (K, 3) float64: score, hypothesis, label.

    Returns how many there are then; `count` are there already.
    """
    most, wide = len(best), language.shape[1] > 1
    for h in range(first, end):
        base = hypotheses[h].score - sums[h] + reward
        for label in range(1, logits.shape[1]):
            score = base + logits[h, label] + (language[h, label] if wide else 0.0)
            if score > (best[most - 1, 0] if count == most else NONE):
                count = insert(best, count, score, h, label)
    return count


@compiled()
def insert(best: Any, count: int, score: float, h: int, label: int) -> int:
    """Put one into the sorted `best`, behind its equals; returns the new count."""
    place = min(count, len(best) - 1)
    while place > 0 and best[place - 1, 0] < score:
        best[place] = best[place - 1]
        place -= 1
    best[place, 0], best[place, 1], best[place, 2] = score, h, label
    return min(count + 1, len(best))


@compiled()
def all_sums(logits: Any, sums: Any) -> bool:
    """`log_sum` of every row of (N, V); False if one is not a number."""
    for h in range(len(logits)):
        sums[h] = log_sum(logits[h])
    return not np.isnan(sums).any()


@compiled()
def end_of(hypotheses: Any, first: int) -> int:
    """Behind the last hypothesis of the utterance whose first one is at `first`."""
    end = first
    while end < len(hypotheses) and hypotheses[end].utterance == hypotheses[first].utterance:
        end += 1
    return end


@compiled()
def add_waiting(waiting: Any, count: int, arriving: Any, score: float) -> int:
    """Put `arriving` among the hypotheses (W,) that wait; equal labels are one hypothesis, with the sum of the two
    probabilities and the times of the likeliest alignment. Returns the new count."""
    path = arriving.path + (score - arriving.score)
    for other in range(count):
        if waiting[other].key == arriving.key:
            if path > waiting[other].path:
                waiting[other].path, waiting[other].node = path, arriving.node
            waiting[other].score = log_add(waiting[other].score, score)
            return count
    waiting[count] = arriving
    waiting[count].score, waiting[count].path, waiting[count].emitted = score, path, 0
    waiting[count].frame += 1
    return count + 1


@compiled()
def beaten(scores: Any, beam: int) -> float:
    """The least score of a beam of the best of (N,); NONE if there is place for all."""
    return np.sort(scores)[len(scores) - beam] if len(scores) >= beam else NONE


@compiled()
def drop_worse(waiting: Any, count: int, least: float) -> int:
    """Move those that have at least this score to the front; returns their number."""
    kept = 0
    for place in range(count):
        if waiting[place].score >= least:
            waiting[kept] = waiting[place]
            kept += 1
    return kept


@compiled()
def expand(
    growing: Any,
    logits: Any,
    language: Any,
    reward: float,
    waiting: Any,
    counts: Any,
    beam: int,
    competing: bool,
    last: bool,
    new: Any,
) -> int:
    """One expansion of a time-synchronous search: hypotheses leave the frame by a blank, and get a label in it.

    Args:
        growing: (N,), of any utterances.
        logits: as above.
        language: as above.
        reward: as above.
        waiting: (B, W) hypotheses of each utterance that have left the frame.
        counts: (B,) how many.
        beam: K.
        competing: whether a beam is kept of the waiting and the new ones together; else a new one is kept if it is
            better than the worst of a beam of waiting ones.
        last: whether there are enough labels in this frame.
        new: receives the hypotheses with one label more (at most N K).

    Returns:
        The number of new ones; -1 if logits are not numbers.
    """
    sums, best, made, first = np.empty(len(growing)), np.empty((beam, 3)), 0, 0
    if not all_sums(logits, sums):
        return -1
    while first < len(growing):
        end, u = end_of(growing, first), growing[first].utterance
        for h in range(first, end):
            score = growing[h].score - sums[h] + logits[h, BLANK]
            counts[u] = add_waiting(waiting[u], counts[u], growing[h], score)
        if not last:
            found = best_labels(first, end, growing, logits, language, reward, sums, best, 0)
            scores, room = waiting[u, : counts[u]].score, beam
            if competing:
                least = beaten(np.concatenate((scores, best[:found, 0])), beam)
                counts[u] = drop_worse(waiting[u], counts[u], least)
                room -= counts[u]
            else:
                least = beaten(scores, beam)
            for place in range(min(found, room)):
                if best[place, 0] >= least if competing else best[place, 0] > least:
                    extend(new[made], growing[int(best[place, 1])], best[place, 0], int(best[place, 2]))
                    made += 1
        first = end
    return made


@compiled()
def keep_best(waiting: Any, counts: Any, kept: Any, numbers: Any) -> None:
    """The best (B, K) of those that wait (B, W), best first, in the utterances in which any does."""
    best = np.empty((kept.shape[1], 3))
    for u in range(len(counts)):
        if counts[u]:
            count = 0
            for place in range(counts[u]):
                if count < len(best) or waiting[u, place].score > best[count - 1, 0]:
                    count = insert(best, count, waiting[u, place].score, place, 0)
            for place in range(count):
                kept[u, place] = waiting[u, int(best[place, 1])]
            numbers[u] = count


@compiled()
def step(
    hypotheses: Any,
    logits: Any,
    language: Any,
    reward: float,
    beam: int,
    most: int,
    kept: Any,
    numbers: Any,
    fresh: Any,
) -> bool:
    """One step of an alignment-length-synchronous search: hypotheses get a blank or a label, and the best are kept.

    Args:
        hypotheses: (N,), of any utterances.
        logits: as above; changed.
        language: as above.
        reward: as above.
        beam: K.
        most: labels that a frame can have.
        kept: (B, K) receives those of the utterances of `hypotheses`, best first.
        numbers: (B,) receives how many.
        fresh: (B, K) bool, receives which of them got a label, or times in which it comes now.

    Returns:
        False if logits are not numbers.
    """
    sums, blanks, best, first = np.empty(len(hypotheses)), np.empty(len(hypotheses)), np.empty((beam, 3)), 0
    paths, via = np.empty(len(hypotheses)), np.arange(len(hypotheses))
    if not all_sums(logits, sums):
        return False
    while first < len(hypotheses):
        end, u, count = end_of(hypotheses, first), hypotheses[first].utterance, 0
        for h in range(first, end):
            blanks[h] = hypotheses[h].score - sums[h] + logits[h, BLANK]
            paths[h] = hypotheses[h].path + (blanks[h] - hypotheses[h].score)
            if hypotheses[h].emitted >= most:
                logits[h, 1:] = NONE
        recombine(first, end, hypotheses, logits, language, reward, sums, blanks, paths, via)
        for h in range(first, end):
            if blanks[h] > (best[beam - 1, 0] if count == beam else NONE):
                count = insert(best, count, blanks[h], h, BLANK)
        count = best_labels(first, end, hypotheses, logits, language, reward, sums, best, count)
        for place in range(count):
            h, label = int(best[place, 1]), int(best[place, 2])
            fresh[u, place] = label != BLANK or via[h] != h
            if label == BLANK:
                kept[u, place] = hypotheses[h]
                kept[u, place].score, kept[u, place].path, kept[u, place].emitted = best[place, 0], paths[h], 0
                kept[u, place].node, kept[u, place].row = hypotheses[via[h]].node, hypotheses[via[h]].row
                kept[u, place].frame += 1
            else:
                extend(kept[u, place], hypotheses[h], best[place, 0], label)
        numbers[u] = count
        first = end
    return True


@compiled()
def recombine(
    first: int,
    end: int,
    hypotheses: Any,
    logits: Any,
    language: Any,
    reward: float,
    sums: Any,
    blanks: Any,
    paths: Any,
    via: Any,
) -> None:
    """Where the label of one hypothesis would make it equal to another behind its blank, give that blank the sum; and
    its path, if that is likelier, `via` the one that it comes from: both are at the same frame then."""
    for longer in range(first, end):
        label = hypotheses[longer].last
        for h in range(first, end):
            if label != BLANK and hypotheses[h].key == hypotheses[longer].prefix:
                added = language[h, label] if language.shape[1] > 1 else 0.0
                score = hypotheses[h].score - sums[h] + reward + logits[h, label] + added
                path = hypotheses[h].path + (score - hypotheses[h].score)
                if path > paths[longer]:
                    paths[longer], via[longer] = path, h
                blanks[longer] = log_add(blanks[longer], score)
                logits[h, label] = NONE
