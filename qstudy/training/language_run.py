"""One training of a language model, from configuration to record."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from qstudy.bits import BitMap
from qstudy.data.sampler import BatchSampler, PieceSampler
from qstudy.data.tokenizer import CharTokenizer, Tokenizer
from qstudy.errors import UserError
from qstudy.fields import fill
from qstudy.files import rows_hash, write_json
from qstudy.model.language import LSTMLanguageModel
from qstudy.model.shapes_only import shapes_only
from qstudy.named import build
from qstudy.quant.packed.model import PackedModel, fill_float, pack_model
from qstudy.quant.policies import QuantPolicy, build_policy
from qstudy.recognize.language import KEY, describe, language_from_packed
from qstudy.recognize.perplexity import perplexity
from qstudy.settings import LanguageModelConfig
from qstudy.training.checkpoint import KIND, read_description, require_no_checkpoint, require_same
from qstudy.training.config import without_neutral
from qstudy.training.devices import check_devices, join, used_precision
from qstudy.training.environment import environment
from qstudy.training.fit import fit_module
from qstudy.training.language_config import LanguageConfig, to_dict
from qstudy.training.language_module import LanguageModule, TextData, collate
from qstudy.training.language_text import Texts, read_texts
from qstudy.training.load import load_tokenizer
from qstudy.training.price import describe_layers, require_trainable
from qstudy.training.recipe import CALIBRATION_BATCHES, fill_slots, naming_rate
from qstudy.training.record import MODEL_FILE, RECORD_FILE
from qstudy.training.saving import Checkpoint

LANGUAGE_MODEL = "language model"
"""What checkpoints and records say that they are of."""
SIZES = ("embedding", "hidden", "layers")
"""Of a language model."""
SAME = ("text", "tokenizer", "model", "policy", "start", "seed")
"""What must not change while a training goes on, beside its schedule."""


@dataclass(frozen=True)
class Sources:
    """What a training reads."""

    tokenizer: Tokenizer
    text: Texts
    dev: Texts | None


def open_sources(config: LanguageConfig) -> Sources:
    """The labels that a configuration asks for, and its texts in them.

    Raises:
        UserError: a file is missing or damaged, or a text does not fit the labels.
    """
    tokenizer = open_tokenizer(config)
    dev = None if config.dev is None else read_texts(Path(config.dev), tokenizer, config.skip_unknown)
    return Sources(tokenizer, read_texts(Path(config.text), tokenizer, config.skip_unknown), dev)


def open_tokenizer(config: LanguageConfig) -> Tokenizer:
    """Raises UserError if a model file is missing, or if `like` and `start` differ."""
    named = [load_tokenizer(Path(path)) for path in (config.like, config.start) if path is not None]
    if not named:
        made: Tokenizer = build(config.tokenizer, {"characters": CharTokenizer}, "tokenizer")
        return made
    if named[0].to_dict() != named[-1].to_dict():
        raise UserError(f"start: {config.start} has other labels than {config.like}; train a float one like it.")
    return named[0]


def run_language(config: LanguageConfig, folder: Path, name: str) -> dict[str, Any]:
    """Train or calibrate, pack, score and record one language model in `folder`; goes on from a checkpoint there.

    Args:
        config: the training.
        folder: receives `record.json`, `model.qst`, `last.ckpt`.
        name: of the run.

    Returns:
        The record, as written; see docs/decoding.md for its fields.

    Raises:
        UserError: bad input; a model too large to be trained; the loss is no number; the folder is another training's.
    """
    used_precision(config.schedule.precision, config.trainer.accelerator)
    check_devices(config.trainer)
    if not build_policy(config.policy).trains:
        require_no_checkpoint(folder)
    sources = open_sources(config)
    devices = join(config.trainer)
    L.seed_everything(config.seed, verbose=False)
    model, policy, bit_map = _prepared(config, sources, devices.device)
    trained: dict[str, Any] = {"steps": 0}
    if policy.trains:
        trained = _fit(LanguageModule(model, policy, config.schedule, config.seed), config, sources, folder, name)
    if devices.is_global_zero:
        model.cpu().eval()
        policy.project_(model, trained["steps"])
        entries = {"run": name, "policy": config.policy["name"], "notes": policy.notes(), **trained}
        record = _conclude(model, bit_map, config, sources, folder, entries)
    devices.barrier()
    return record if devices.is_global_zero else {}


def _prepared(
    config: LanguageConfig, sources: Sources, device: torch.device
) -> tuple[LSTMLanguageModel, QuantPolicy, BitMap]:
    """The model where it is trained, its slots filled and calibrated, the policy that did it, and the widths."""
    with shapes_only():
        require_trainable(LSTMLanguageModel(sources.tokenizer.size, config.model).shapes())
    model, policy = LSTMLanguageModel(sources.tokenizer.size, config.model), build_policy(config.policy)
    if config.start is not None:
        packed = PackedModel.load(config.start)
        started, _ = language_from_packed(packed)
        _require_sizes(packed, config)
        fill_float(model, started)
    model.to(device)
    bit_map = policy.bit_map(model.shapes())
    fill_slots(model, policy, bit_map, config.schedule.steps, _passes(model, config, sources.text, device))
    return model, policy, bit_map


def _require_sizes(packed: PackedModel, config: LanguageConfig) -> None:
    """Raise UserError unless the model that training starts from is as large as the configuration says."""
    there, asked = asdict(fill(LanguageModelConfig, packed.header[KEY])), asdict(config.model)
    if other := [f"model.{name} {there[name]}, not {asked[name]}" for name in SIZES if there[name] != asked[name]]:
        raise UserError(f"start: {config.start} has {' and '.join(other)}; say so by --model, or name another file.")


@torch.no_grad()
def _passes(model: LSTMLanguageModel, config: LanguageConfig, text: Texts, device: torch.device) -> Iterator[None]:
    """Run the model over a few training batches."""
    for indices in _batches(config, text).batches(1)[:CALIBRATION_BATCHES]:
        model(collate([text.labels[index] for index in indices]).targets.to(device))
        yield


def _batches(config: LanguageConfig, text: Texts) -> BatchSampler:
    """Of texts of similar length, in labels: their ends count."""
    lengths = np.array([len(each) + 1 for each in text.labels])
    return BatchSampler(lengths, config.schedule.batch_size, config.seed)


def _fit(module: LanguageModule, config: LanguageConfig, sources: Sources, folder: Path, name: str) -> dict[str, Any]:
    """Train in `folder`, from its checkpoint if there is one; returns what the record says of the training."""
    schedule = config.schedule
    about = {
        KIND: LANGUAGE_MODEL,
        **{field: to_dict(config)[field] for field in (*SAME, config.schedule_name)},
        "text": rows_hash(sources.text.labels),
        "tokenizer": sources.tokenizer.to_dict(),
        "start": config.start_identity,
    }
    batches = _batches(config, sources.text)
    pieces = PieceSampler(batches, 1, schedule.steps, schedule.accumulate, counts=batches.lengths)
    data, checkpoint = TextData(sources.text.labels, pieces), Checkpoint(folder, schedule.checkpoint_every, about)
    if checkpoint.path.exists():
        now, then = (_what_counts(each, config) for each in (about, read_description(checkpoint.path)))
        require_same(checkpoint.path, now, then)
    with naming_rate(config.schedule_name, schedule):
        return fit_module(module, data, config.trainer, checkpoint, name, logger=False)


def _what_counts(about: dict[str, Any], config: LanguageConfig) -> dict[str, Any]:
    """A checkpoint's description without what changes nothing in what is trained."""
    there = isinstance(about.get(config.schedule_name), dict)  # not where it started from something else
    return without_neutral(about, [config.schedule_name] if there else [])


def _conclude(
    model: LSTMLanguageModel,
    bit_map: BitMap,
    config: LanguageConfig,
    sources: Sources,
    folder: Path,
    entries: dict[str, Any],
) -> dict[str, Any]:
    """Pack a trained model, save and score it, and write the record."""
    shapes = model.shapes()
    packed = pack_model(model, bit_map, shapes, describe(config.model, sources.tokenizer, config.policy))
    packed.save(folder / MODEL_FILE)
    served, _ = language_from_packed(packed)
    scored = {"dev": sources.dev} if sources.dev is not None else {}
    record = {
        "kind": LANGUAGE_MODEL,
        **entries,
        "config": to_dict(config),
        **describe_layers(shapes, bit_map),
        "file_bytes": (folder / MODEL_FILE).stat().st_size,
        "perplexity": {key: perplexity(served, texts.labels, texts.words).to_dict() for key, texts in scored.items()},
        "training_model_perplexity": {
            key: perplexity(model, texts.labels, texts.words).to_dict() for key, texts in scored.items()
        },
        "skipped": {"text": sources.text.skipped, **{key: texts.skipped for key, texts in scored.items()}},
        "seed": config.seed,
        **environment(),
    }
    write_json(folder / RECORD_FILE, record)
    return record
