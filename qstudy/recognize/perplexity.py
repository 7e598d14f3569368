"""How well a language model predicts texts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from qstudy.model.language import LanguageModel, require_numbers
from qstudy.model.predictors import BLANK

TOGETHER = 64
"""Texts that are scored at a time."""


@dataclass(frozen=True)
class Perplexity:
    """Of some texts; the end of each counts as a label and as a word, as in SRILM and kenlm."""

    label: float
    """exp(-log-probability / labels)."""
    word: float
    """exp(-log-probability / words); may be infinite."""
    labels: int
    words: int
    texts: int

    def to_dict(self) -> dict[str, float | None]:
        """JSON-able: None where it is above all numbers, as that of few, long words can be."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


def perplexity(model: LanguageModel, texts: Sequence[Sequence[int]], words: int) -> Perplexity:
    """Score texts, label by label, as a decoder asks for them.

    Args:
        model: on the CPU, in evaluation mode.
        texts: labels 1 .. V - 1 of each; at least one text.
        words: in all of them.

    Raises:
        UserError: what the model says are not numbers.
    """
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    groups = [[texts[index] for index in order[i : i + TOGETHER]] for i in range(0, len(order), TOGETHER)]
    total = sum(float(log_likelihoods(model, group).sum()) for group in groups)
    labels, words = sum(map(len, texts)) + len(texts), words + len(texts)
    with np.errstate(over="ignore"):
        by_label, by_word = (float(np.exp(-total / count)) for count in (labels, words))
    return Perplexity(by_label, by_word, labels, words, len(texts))


@torch.no_grad()
def log_likelihoods(model: LanguageModel, texts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Natural log-probabilities (N,) float64 of whole texts, their ends included."""
    longest = max(map(len, texts)) + 1
    following = torch.zeros(len(texts), longest, dtype=torch.int64)  # 0 is the end
    counted = torch.zeros(len(texts), longest, dtype=torch.float64)
    for row, text in enumerate(texts):
        following[row, : len(text)] = torch.tensor(text, dtype=torch.int64)
        counted[row, : len(text) + 1] = 1
    labels, state = torch.full((len(texts),), BLANK), model.start(len(texts), torch.device("cpu"))
    total = torch.zeros(len(texts), dtype=torch.float64)
    for place in range(longest):
        rows, state = model.advance(labels, state)
        require_numbers(model, rows)
        labels = following[:, place]
        total += counted[:, place] * rows.gather(1, labels.unsqueeze(1))[:, 0].double()
    return total


def lines_of(scores: Mapping[str, Mapping[str, Any]], skipped: Mapping[str, int]) -> list[str]:
    """What people read of the perplexities of texts.

    Args:
        scores: text -> `Perplexity.to_dict()`.
        skipped: text -> lines of it that were left out.
    """
    return [
        *(f"{name}: {_sentence(score)}" for name, score in scores.items()),
        *(f"{name}: {n:,} lines left out, for characters that no label covers" for name, n in skipped.items() if n),
    ]


def _sentence(score: Mapping[str, Any]) -> str:
    by_label, by_word = (
        "above 1e308" if score[key] is None else f"{score[key]:.{digits}f}"
        for key, digits in (("label", 3), ("word", 2))
    )
    return (
        f"perplexity {by_label} per label, {by_word} per word; "
        f"{score['labels']:,} labels and {score['words']:,} words in {score['texts']:,} texts, their ends counted"
    )
