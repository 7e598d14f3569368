"""How a run ends: its model is packed, saved and scored on every set, and its record written."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from qstudy.data.batches import collate, evaluation_batches
from qstudy.data.feature_set import FeatureSet
from qstudy.data.metrics import bootstrap_interval, character_errors, utterance_errors, word_errors
from qstudy.data.tokenizer import Tokenizer
from qstudy.errors import UserError, naming
from qstudy.hardware.accelerator import load_accelerator
from qstudy.hardware.backlog import backlog
from qstudy.hardware.workload import workload
from qstudy.model import RNNT
from qstudy.model.encoders import Encoder
from qstudy.quant.packed.model import PackedModel, pack_model
from qstudy.recognize.decoder import Decoder
from qstudy.recognize.greedy import Greedy
from qstudy.recognize.recognizer import Recognizer, describe, recognizer_from_packed
from qstudy.training.assets import Assets
from qstudy.training.config import RunConfig, to_dict
from qstudy.training.environment import environment
from qstudy.training.price import Price, describe_price, price_layers
from qstudy.training.record import MODEL_FILE, Record, require_valid, write_record
from qstudy.training.sections import UTTERANCES

SAMPLES = 12  # transcripts kept in a record
FOLLOWED = 100
"""Utterances of dev whose backlog is simulated."""


@torch.no_grad()
def recognize(
    model: RNNT, features: FeatureSet, tokenizer: Tokenizer, name: str = "", decoder: Decoder | None = None
) -> tuple[list[str], float]:
    """Decode every utterance.

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


def evaluate(model: RNNT, recognizer: Recognizer, assets: Assets) -> dict[str, Any]:
    """What a record says of a finished model: the packed one's scores on every set, the training model's on dev beside
    them, to tell whether the two agree."""
    loaded = recognizer.model
    metrics, edits, samples, counted, heard = {}, {}, {}, {}, {}
    for name, features in assets.evaluated.items():
        if branching := loaded.encoder.branching:
            branching.reset_usage()
        texts, seconds = recognize(loaded, features, assets.tokenizer, name)
        heard[name] = texts
        groups = assets.groups.get(name)
        metrics[name] = score(features, texts, seconds, groups)
        if branching and (usage := branching.usage()) is not None:
            counted[name] = usage
        edits[name] = by_utterance(features, texts, groups)
        pairs = list(zip(features.texts, texts, strict=True))[:SAMPLES]
        samples[name] = [{"reference": reference, "hypothesis": text} for reference, text in pairs]
    texts, seconds = recognize(model, assets.dev, assets.tokenizer, "training model")
    return {
        "metrics": metrics,
        "first_pass": score_first_pass(recognizer, assets),
        "utterances": edits,
        "usage": counted,
        "training_model_wer": score(assets.dev, texts, seconds)["wer"],
        "mismatches": sum(one != other for one, other in zip(texts, heard["dev"], strict=True)),
        "samples": next((kept for name, kept in samples.items() if name != "dev"), samples["dev"]),
    }


def score_first_pass(recognizer: Recognizer, assets: Assets) -> dict[str, Any] | None:
    """What the first pass of a cascaded encoder alone scores on every set, and decodes from then on; None: there is
    none."""
    if recognizer.model.encoder.first_pass is None:
        return None
    recognizer.decode_from("first")
    found = {}
    for name, features in assets.evaluated.items():
        texts, seconds = recognize(recognizer.model, features, assets.tokenizer, f"{name}, first pass")
        found[name] = score(features, texts, seconds, assets.groups.get(name))
    return found


def measure_backlog(
    encoder: Encoder, packed: PackedModel, config: RunConfig, features: FeatureSet
) -> dict[str, dict[str, float]]:
    """Accelerator -> `latency_ms` (median) and `worst_ms` of utterances whose branches were decided frame by frame.

    Args:
        encoder: the packed one.
        packed: how often its layers run, and their widths.
        config: the accelerators, and the tail of the utterances.
        features: the set; its first utterances are followed.
    """
    load, found = workload(packed.shapes, packed.bit_map), {}
    items, tail_ms = range(min(len(features), FOLLOWED)), config.features.tail_ms
    taken = [encoder.taken(torch.from_numpy(features.frames(item))) for item in items]
    durations_ms = [float(features.lengths[item]) * config.features.hop_ms - tail_ms for item in items]
    for name in config.accelerator:
        accelerator = load_accelerator(name)
        behind = [
            backlog(load, accelerator, taken[i], max(durations_ms[i], 1.0) / 1000, len(features.labels[i]), tail_ms)
            for i in items
        ]
        found[name] = {
            "latency_ms": float(np.median([each.latency_ms for each in behind])),
            "worst_ms": max(each.worst_ms for each in behind),
        }
    return found


def require_recordable(config: RunConfig, cost: Price, assets: Assets, **entries: Any) -> None:
    """Hold what is known of a record before the training against its types.

    Raises:
        UserError: a name is too long, or a set too large, for a record.
    """
    for name, features in assets.evaluated.items():
        if len(features) > UTTERANCES:
            raise UserError(
                f"data: {name} has {len(features):,} utterances, more than the {UTTERANCES:,} that a record holds; "
                "divide its manifest."
            )
    sets: dict[str, Any] = {name: {} for name in assets.evaluated}
    known = Record(
        state="complete",
        policy=config.policy["name"],
        config=to_dict(config),
        metrics=sets,
        **describe_price(cost),
        **entries,
    )
    with naming("The record of this run"):
        require_valid(known)


def conclude(model: RNNT, config: RunConfig, cost: Price, assets: Assets, folder: Path, **entries: Any) -> Record:
    """Pack a model, save and score it, and write the record.

    Args:
        model: on the CPU, in evaluation mode, its slots as they are to be packed.
        config: the run.
        cost: what it was known to cost before it was trained.
        assets: the sets that it is scored on.
        folder: receives `model.qst` and `record.json`.
        entries: of the record, beside those that follow from the above.
    """
    header = describe(config.model, config.features, assets.tokenizer, config.policy)
    packed = pack_model(model, cost.bit_map, model.shapes(), header)
    recognizer = recognizer_from_packed(packed)
    scores = evaluate(model, recognizer, assets)
    branching, counted = model.encoder.branching, scores["usage"]
    if branching and counted:  # now it is known how often layers run: the file and the price say so
        branching.adopt_usage(counted["dev"])
        packed = pack_model(model, cost.bit_map, model.shapes(), header)
        counted["dev"]["backlog"] = measure_backlog(recognizer.model.encoder, packed, config, assets.dev)
    cost = price_layers(packed.shapes, cost.bit_map, config)
    packed.save(folder / MODEL_FILE)
    record = Record(
        state="complete",
        policy=config.policy["name"],
        config=to_dict(config),
        **{**describe_price(cost), "size_bytes": packed.size_bytes},
        **{**scores, "usage": counted or None},
        file_bytes=(folder / MODEL_FILE).stat().st_size,
        seed=config.seed,
        **environment(),
        **entries,
    )
    return write_record(folder, record)
