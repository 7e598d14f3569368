"""How a run ends: its model is packed, saved and scored on every set, and its record written."""

from pathlib import Path
from typing import Any

from qstudy.errors import UserError, naming
from qstudy.model import RNNT
from qstudy.quant.packed.model import pack_model
from qstudy.recognize.recognizer import Recognizer, describe, recognizer_from_packed
from qstudy.recognize.score import by_utterance, recognize, sample, score
from qstudy.training.assets import Assets
from qstudy.training.backlog import measure_backlog
from qstudy.training.config import RunConfig, to_dict
from qstudy.training.environment import environment
from qstudy.training.price import Price, describe_price, price_layers
from qstudy.training.record import MODEL_FILE, Record, require_valid, write_record
from qstudy.training.sections import UTTERANCES


def evaluate(model: RNNT, recognizer: Recognizer, assets: Assets) -> dict[str, Any]:
    """What a record says of a finished model: the packed one's scores on every set, the training model's on dev beside
    them, to tell whether the two agree."""
    loaded = recognizer.model
    metrics, edits, samples, counted, heard = {}, {}, {}, {}, {}
    for name, features in assets.evaluated.items():
        texts, seconds = recognize(loaded, features, assets.tokenizer, name)
        heard[name] = texts
        groups = assets.groups.get(name)
        metrics[name] = score(features, texts, seconds, groups)
        if (branching := loaded.encoder.branching) and (usage := branching.usage()) is not None:
            counted[name] = usage
        edits[name] = by_utterance(features, texts, groups)
        samples[name] = sample(features, texts)
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
    """What the first pass of a cascaded encoder alone scores on every set; None: there is none."""
    if recognizer.model.encoder.first_pass is None:
        return None
    recognizer.decode_from("first")
    found = {}
    try:
        for name, features in assets.evaluated.items():
            texts, seconds = recognize(recognizer.model, features, assets.tokenizer, f"{name}, first pass")
            found[name] = score(features, texts, seconds, assets.groups.get(name))
    finally:
        recognizer.decode_from("last")
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
