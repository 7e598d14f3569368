"""One run, from configuration to record: price, prepare, run."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch

from qstudy.bits import BitMap, LayerShape
from qstudy.data.batches import BatchSampler, collate
from qstudy.data.cache import mean_std
from qstudy.errors import UserError
from qstudy.files import content_hash, read_json
from qstudy.hardware.accelerator import load_accelerator
from qstudy.hardware.simulator import simulate
from qstudy.hardware.size import layer_bytes, size_bytes
from qstudy.hardware.workload import workload
from qstudy.model import RNNT
from qstudy.quant.packed import PackedModel, fill_packed
from qstudy.quant.policies import build_policy
from qstudy.recognizer import describe, pack, recognizer_from_packed
from qstudy.training.assets import Assets, label_count, make_corpus, open_assets
from qstudy.training.config import RunConfig, to_dict
from qstudy.training.evaluation import by_utterance, recognize, score
from qstudy.training.fit import Report, fit
from qstudy.training.module import TransducerModule
from qstudy.training.precision import check_precision
from qstudy.training.record import RECORD_FILE, environment, headline, write_record
from qstudy.training.tracking import Tracker

CALIBRATION_BATCHES = 8
SAMPLES = 12  # transcripts kept in a record
MODEL_FILE = "model.qst"


@dataclass(frozen=True)
class Price:
    """What a configuration costs; known before training."""

    bit_map: BitMap
    shapes: list[LayerShape]
    size_bytes: int
    """Bytes of the packed model's tensors."""
    latency: dict[str, dict[str, Any]]
    """Per accelerator, the simulator's totals."""


def price(config: RunConfig) -> Price:
    """Size and latency of the configured model under its policy; milliseconds, no training, no audio.

    Raises:
        UserError: a pattern that matches nothing, an unknown policy or accelerator.
    """
    with torch.device("meta"):
        model = RNNT(config.model, config.features.bins, config.features.hop_ms, label_count(config))
    shapes = model.shapes()
    bit_map = build_policy(config.policy).bit_map(shapes)
    latency = {
        name: simulate(workload(shapes, bit_map), load_accelerator(name)).summary() for name in config.accelerator
    }
    return Price(bit_map, shapes, size_bytes(shapes, bit_map), latency)


def prepare(config: RunConfig) -> None:
    """Make what all runs of a study share: corpus, feature caches, float baseline."""
    check_precision(config)
    open_assets(config)
    float_baseline(config)


def float_baseline(config: RunConfig) -> Path:
    """The folder of the float baseline that `config` starts from; trained on first use, then found by its hash.

    Several processes may ask at once: one trains, the others wait.
    """
    own = replace(config, policy={"name": "float"}, start="scratch")
    make_corpus(own)
    manifest = Path(own.data.train)
    if not manifest.exists():
        raise UserError(f"data.train: there is no manifest {manifest}; make the corpus with `qstudy data`.")
    parts = {key: to_dict(own)[key] for key in ("features", "tokenizer", "model", "augment", "training", "seed")}
    identity = content_hash(manifest.read_text(encoding="utf-8"), parts)
    folder = Path(own.cache) / "baselines" / identity
    with _lock(folder.with_suffix(".lock")):
        if not (folder / RECORD_FILE).exists():
            run(own, folder, name=f"float-{identity[:8]}")
    return folder


def run(
    config: RunConfig,
    folder: Path,
    *,
    name: str,
    study: str | None = None,
    trial: int | None = None,
    extra: dict[str, Any] | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Train or calibrate, pack, evaluate and record one model in `folder`; goes on from a checkpoint there.

    Args:
        config: the run.
        folder: receives `record.json`, `model.qst`, `last.ckpt` and the W&B run.
        name: of the run.
        study: its study, W&B's group.
        trial: its number in the study.
        extra: more entries for the record (budgets).
        report: called with (step, dev WER) while training; may raise to stop.

    Returns:
        The record, as written.
    """
    check_precision(config)
    L.seed_everything(config.seed, verbose=False)
    cost = price(config)
    assets = open_assets(config)
    baseline = None if config.from_scratch else float_baseline(config)
    with Tracker(folder, study, name, to_dict(config), enabled=config.track) as tracker:
        model, policy = _new_model(config, assets, baseline), build_policy(config.policy)
        policy.total_steps = config.schedule.steps
        policy.prepare(model)
        policy.calibrate(model, _passes(model, config, assets))
        trained: dict[str, Any] = {"steps": 0, "step_ms": None, "train_seconds": 0.0, "loss": None, "precision": None}
        if policy.trains:
            module = TransducerModule(model, policy, config.schedule, assets.tokenizer.size)
            trained = fit(module, config, assets, folder, name, tracker.log, report)
        model.cpu().eval()
        policy.project_(model, trained["steps"])
        header = describe(config.model, config.features, assets.tokenizer, config.policy)
        packed = pack(model, cost.bit_map, header)
        packed.save(folder / MODEL_FILE)
        record = {
            "run": name,
            "study": study,
            "trial": trial,
            "state": "complete",
            "reason": None,
            "policy": config.policy["name"],
            "config": to_dict(config),
            **describe_price(cost),
            "notes": policy.notes(),
            **_evaluate(model, packed, assets),
            "size_bytes": packed.size_bytes,
            "file_bytes": (folder / MODEL_FILE).stat().st_size,
            "baseline": _baseline_summary(baseline),
            **trained,
            "seed": config.seed,
            **environment(),
            **(extra or {}),
        }
        record = write_record(folder, record)
        tracker.finish(record, folder / MODEL_FILE)
    return record


def describe_price(cost: Price) -> dict[str, Any]:
    """The record's entries that are known before training."""
    layers = {
        shape.name: {
            "kind": shape.kind,
            "parameters": shape.parameters,
            "bytes": layer_bytes(shape, cost.bit_map[shape.name]) if shape.matrices else 4 * shape.vectors,
        }
        for shape in cost.shapes
    }
    bit_map = {name: bits.to_dict() for name, bits in cost.bit_map.items()}
    return {"bit_map": bit_map, "layers": layers, "size_bytes": cost.size_bytes, "latency": cost.latency}


def _new_model(config: RunConfig, assets: Assets, baseline: Path | None) -> RNNT:
    model = RNNT(config.model, config.features.bins, config.features.hop_ms, assets.tokenizer.size)
    if baseline is not None:
        fill_packed(model, PackedModel.load(baseline / MODEL_FILE))
        return model
    mean, deviation = mean_std(assets.train)
    model.encoder.normalize.mean.copy_(torch.from_numpy(mean))
    model.encoder.normalize.deviation.copy_(torch.from_numpy(deviation))
    return model


@torch.no_grad()
def _passes(model: RNNT, config: RunConfig, assets: Assets) -> Iterator[None]:
    """Run the model over a few training batches, without augmentation."""
    batches = BatchSampler(assets.train.lengths, config.schedule.batch_size, config.seed).batches(1)
    for indices in batches[:CALIBRATION_BATCHES]:
        batch = collate(assets.train, indices)
        model(batch.features, batch.feature_lengths, batch.targets)
        yield


def _evaluate(model: RNNT, packed: PackedModel, assets: Assets) -> dict[str, Any]:
    """Score the packed model on every set, and the training model on dev, to tell whether the two agree."""
    served = recognizer_from_packed(packed).model
    metrics, edits, samples = {}, {}, {}
    for name, features in assets.evaluated.items():
        texts, seconds = recognize(served, features, assets.tokenizer, name)
        metrics[name] = score(features, texts, seconds)
        edits[name] = by_utterance(features, texts)
        pairs = list(zip(features.texts, texts, strict=True))[:SAMPLES]
        samples[name] = [{"reference": reference, "hypothesis": text} for reference, text in pairs]
    texts, seconds = recognize(model, assets.dev, assets.tokenizer, "training model")
    return {
        "metrics": metrics,
        "utterances": edits,
        "training_model_wer": score(assets.dev, texts, seconds)["wer"],
        "samples": next((kept for name, kept in samples.items() if name != "dev"), samples["dev"]),
    }


def _baseline_summary(folder: Path | None) -> dict[str, Any] | None:
    if folder is None:
        return None
    record = read_json(folder / RECORD_FILE)
    kept = {key: record.get(key) for key in ("size_bytes", "metrics", "utterances", "latency")}
    return {"id": record["run"], "wer": headline(record)["wer"], **kept}


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time; a killed one lets go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
