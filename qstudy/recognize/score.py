"""What a recognizer makes of a set of utterances, and how much of it is wrong."""

import time
from typing import Any

import torch
from tqdm import tqdm

from qstudy.data.batches import collate, evaluation_batches
from qstudy.data.feature_set import FeatureSet
from qstudy.data.metrics import bootstrap_interval, character_errors, utterance_errors, word_errors
from qstudy.data.tokenizer import Tokenizer
from qstudy.model import RNNT
from qstudy.recognize.decoder import Decoder
from qstudy.recognize.greedy import Greedy

SAMPLES = 12  # transcripts kept in a record


@torch.no_grad()
def recognize(
    model: RNNT, features: FeatureSet, tokenizer: Tokenizer, name: str = "", decoder: Decoder | None = None
) -> tuple[list[str], float]:
    """Decode every utterance, after two that are not timed: what is compiled on its first use is no decoding. Layers
    that leave frames out count them anew.

    Args:
        model: float, fake-quantized or packed.
        features: the utterances.
        tokenizer: the model's.
        name: of the set, for the progress bar; empty: no bar.
        decoder: the search; None: greedy.

    Returns:
        One text per utterance, in the set's order, and the seconds that it took.
    """
    batches = evaluation_batches(features.lengths)
    texts, search = [""] * len(features), decoder or Greedy()
    training = model.training
    model.eval()
    if shortest := sorted(range(len(features)), key=features.lengths.__getitem__)[:2]:
        first = collate(features, shortest).to(model.device)
        search.best(model, first.features, first.feature_lengths)
    if branching := model.encoder.branching:
        branching.reset_usage()
    begin = time.perf_counter()
    for indices in tqdm(batches, desc=f"Decode {name}", unit="batch", disable=None if name else True, leave=False):
        batch = collate(features, indices).to(model.device)
        for index, labels in zip(indices, search.best(model, batch.features, batch.feature_lengths), strict=True):
            texts[index] = tokenizer.decode(labels)
    model.train(training)
    return texts, time.perf_counter() - begin


def score(
    features: FeatureSet, hypotheses: list[str], seconds: float, groups: list[int] | None = None
) -> dict[str, Any]:
    """Error rates (fractions) with their counts and 95 % interval, and the real-time factor, JSON-able; the interval is
    that of `groups` (a number for each utterance), if there are any."""
    words = word_errors(features.texts, hypotheses)
    low, high = bootstrap_interval(features.texts, hypotheses, groups=groups)
    return {
        "wer": words.rate,
        "wer_low": low,
        "wer_high": high,
        "cer": character_errors(features.texts, hypotheses).rate,
        "substitutions": words.substitutions,
        "insertions": words.insertions,
        "deletions": words.deletions,
        "words": words.reference,
        "utterances": len(features),
        "rtf": seconds / max(features.duration_s, 1e-9),
    }


def by_utterance(features: FeatureSet, hypotheses: list[str], groups: list[int] | None = None) -> dict[str, str]:
    """Word `errors` and reference `words` of every utterance, in the set's order, as text (`0 0 2 1`), and its group.

    With these two runs can be compared utterance by utterance; as text, because indented JSON gives every entry of a
    list its own line.
    """
    errors, words = utterance_errors(features.texts, hypotheses)
    counts = {"errors": errors, "words": words} | ({"groups": groups} if groups else {})
    return {name: " ".join(map(str, numbers)) for name, numbers in counts.items()}


def sample(features: FeatureSet, hypotheses: list[str]) -> list[dict[str, str]]:
    """The first utterances, as they were said and as they were heard."""
    pairs = list(zip(features.texts, hypotheses, strict=True))[:SAMPLES]
    return [{"reference": reference, "hypothesis": text} for reference, text in pairs]
