"""Word and character error rates as counts (aligned by jiwer), and how sure one can be of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

from qstudy.bootstrap import by_group, count_groups, widened

_BLOCK = 4_000_000  # resampled utterances held at a time: 32 MB


@dataclass(frozen=True)
class ErrorCounts:
    """Edits that turn the references into the hypotheses, summed over utterances."""

    substitutions: int
    """Words (or characters) that became others."""
    insertions: int
    """Words of the hypotheses that nobody said."""
    deletions: int
    """Words of the references that are missing."""
    reference: int
    """Words of the references."""

    @property
    def errors(self) -> int:
        """All edits."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        """Errors per reference word, a fraction, maybe above 1; if there are no words, the errors (jiwer's rule)."""
        return self.errors / max(self.reference, 1)


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorCounts:
    """Count word errors over utterances; empty references and hypotheses are fine.

    Raises:
        ValueError: not one hypothesis per reference.
    """
    return _counts(jiwer.process_words(*_paired(references, hypotheses)))


def character_errors(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorCounts:
    """Count character errors over utterances, spaces included; raises as `word_errors`."""
    return _counts(jiwer.process_characters(*_paired(references, hypotheses)))


def utterance_errors(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[list[int], list[int]]:
    """Word errors and reference words of every utterance; raises as `word_errors`."""
    if not (len(references) or len(hypotheses)):
        return [], []  # jiwer makes one empty utterance of none
    alignment = jiwer.process_words(*_paired(references, hypotheses))
    return [_edits(chunks) for chunks in alignment.alignments], [len(words) for words in alignment.references]


def bootstrap_interval(
    references: Sequence[str],
    hypotheses: Sequence[str],
    seed: int = 0,
    samples: int = 1000,
    groups: Sequence[int] | None = None,
) -> tuple[float, float]:
    """The 95 % interval of the word error rate, by drawing utterances, or groups of them, again with replacement.

    Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation"; of groups:
    `qstudy.bootstrap`.

    Args:
        references: what was said, one text per utterance.
        hypotheses: what was recognized.
        seed: of the draws; equal seeds, equal interval.
        samples: number of draws of the whole set, at least 1.
        groups: number of each utterance's group, from 0 on; None, or a single one: utterances are drawn.

    Returns:
        The 2.5 and 97.5 percentiles, fractions; (0, 0) without words. Of no errors no draw has any; then the upper end
        is the rate at which so many words are all right in one of forty sets (Clopper and Pearson 1934). All draws of
        one utterance are alike; then words are taken for independent (Wilson 1927).

    Raises:
        ValueError: not one hypothesis per reference, or no samples.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}, but must be at least 1.")
    counts = np.array(utterance_errors(references, hypotheses), dtype=np.float64)  # (2, N)
    if not counts.any():
        return 0.0, 0.0
    if not counts[0].any():
        return 0.0, 1 - 0.025 ** (1 / counts[1].sum())
    if counts.shape[1] == 1:
        return _wilson(*counts[:, 0])
    number = count_groups(groups)
    errors, words = by_group(counts, np.array(groups)) if number else counts
    drawn = _rates(errors, words, seed, samples)
    if number:
        drawn = widened(drawn, errors.sum() / max(words.sum(), 1), number).clip(0)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _wilson(errors: float, words: float, deviations: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a rate by the counts alone; of more errors than words as if all were wrong."""
    rate, square = min(errors / max(words, 1), 1.0), deviations**2 / max(words, 1)
    middle, half = (
        rate + square / 2,
        deviations * (rate * (1 - rate) / max(words, 1) + square / (4 * max(words, 1))) ** 0.5,
    )
    return (middle - half) / (1 + square), (middle + half) / (1 + square)


def _rates(errors: np.ndarray, words: np.ndarray, seed: int, samples: int) -> np.ndarray:
    """(samples,) error rates of sets drawn with replacement from (N,) utterances or groups."""
    count, generator, rates = len(words), np.random.default_rng(seed), []
    for size in _blocks(samples, max(1, _BLOCK // count)):
        drawn = generator.integers(count, size=(size, count))
        rates.append(errors[drawn].sum(1) / np.maximum(words[drawn].sum(1), 1))
    return np.concatenate(rates)


def _paired(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[list[str], list[str]]:
    """Both as lists of the same length: jiwer counts nothing at all where one of them is empty."""
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references and {len(hypotheses)} hypotheses: the lengths must match.")
    return list(references), list(hypotheses)


def _counts(output: jiwer.WordOutput | jiwer.CharacterOutput) -> ErrorCounts:
    reference = output.hits + output.substitutions + output.deletions
    return ErrorCounts(output.substitutions, output.insertions, output.deletions, reference)


def _edits(chunks: Sequence[jiwer.AlignmentChunk]) -> int:
    """Errors of one utterance; a substitution covers as many words on either side."""
    return sum(
        max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
        for chunk in chunks
        if chunk.type != "equal"
    )


def _blocks(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]
