"""One run, from configuration to record."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from qstudy.data.augment import stretched_length
from qstudy.data.batches import collate
from qstudy.data.feature_set import mean_std
from qstudy.data.sampler import BatchSampler
from qstudy.errors import UserError
from qstudy.model import RNNT
from qstudy.quant.packed.model import PackedModel, fill_packed
from qstudy.quant.policies import QuantPolicy, build_policy
from qstudy.training.assets import Assets, open_assets
from qstudy.training.baseline import baseline_summary, find_baseline
from qstudy.training.checkpoint import require_no_checkpoint
from qstudy.training.conclude import conclude, require_recordable
from qstudy.training.config import RunConfig
from qstudy.training.devices import check_devices, check_precision, join
from qstudy.training.price import Price, price
from qstudy.training.recipe import CALIBRATION_BATCHES, fill_slots, naming_rate
from qstudy.training.record import MODEL_FILE, RECORD_FILE, Record, read_record
from qstudy.training.start import require_fitting
from qstudy.training.tracking import entry_of, start_tracking

if TYPE_CHECKING:  # Lightning takes seconds to import
    from qstudy.training.fit import Report

UNTRAINED: dict[str, Any] = {"steps": 0, "step_ms": None, "train_seconds": 0.0, "loss": None, "precision": None}
"""What the record of a policy that does not train tells of its training."""


def prepare(config: RunConfig) -> None:
    """Make what all runs of a study share: corpus, feature caches, float baseline."""
    check_precision(config, config.trainer.accelerator)
    _require_start(config)
    open_assets(config)
    float_baseline(config)


def float_baseline(config: RunConfig) -> Path:
    """The folder of the float model that `config` starts from (`qstudy.training.baseline`)."""
    return find_baseline(config, train=run)


def run(
    config: RunConfig,
    folder: Path,
    *,
    name: str,
    study: str | None = None,
    trial: int | None = None,
    extra: dict[str, Any] | None = None,
    cost: Price | None = None,
    report: "Report | None" = None,
) -> Record:
    """Train or calibrate, pack, evaluate and record one model in `folder`; goes on from a checkpoint there.

    Args:
        config: the run.
        folder: receives `record.json`, `model.qst`, `last.ckpt` and the W&B run.
        name: of the run.
        study: its study, W&B's group.
        trial: its number in the study.
        extra: more entries for the record (budgets).
        cost: of the run, if it was priced before.
        report: called with (step, dev WER) while training; may raise to stop.

    Returns:
        The record, as written.
    """
    from lightning import seed_everything  # here, as what trains: importing both takes seconds

    from qstudy.training.fit import fit
    from qstudy.training.module import TransducerModule

    check_precision(config, config.trainer.accelerator)
    check_devices(config.trainer)
    if not _trains(config):
        require_no_checkpoint(folder)
    _require_start(config)
    cost, assets = cost or price(config), open_assets(config)  # bad input is told by one process, before there are more
    require_recordable(config, cost, assets, run=name, study=study, trial=trial, **(extra or {}))
    devices = join(config.trainer)
    baseline = None if config.from_scratch else float_baseline(config)
    seed_everything(config.seed, verbose=False)  # here: a baseline that had to be trained has drawn from it
    tracked = config.track and devices.is_global_zero
    widths = {layer: bits.to_dict() for layer, bits in cost.bit_map.items()}
    tracker = start_tracking(entry_of(config, folder, widths, study, trial)) if tracked else None
    with tracker or nullcontext(), naming_rate(config.schedule_name, config.schedule):
        model, policy = _prepared(config, cost, assets, baseline, devices.device)
        trained = UNTRAINED
        if policy.trains and config.schedule.steps:
            module = TransducerModule(model, policy, config.schedule, assets.tokenizer, config.seed)
            trained = fit(module, config, assets, folder, name, tracker, report)
        if not devices.is_global_zero:  # one process tells what came out
            devices.barrier()
            return read_record(folder / RECORD_FILE)
        model.cpu().eval()
        policy.project_(model, trained["steps"])
        entries = {"notes": policy.notes(), "baseline": baseline_summary(baseline), **trained, **(extra or {})}
        record = conclude(model, config, cost, assets, folder, run=name, study=study, trial=trial, **entries)
        if tracker:
            tracker.finish(record, folder / MODEL_FILE)
    devices.barrier()
    return record


def calibrated(config: RunConfig) -> tuple[RNNT, QuantPolicy]:
    """The model as its training would begin, on its device: slots filled and calibrated; in evaluation mode."""
    from lightning import seed_everything

    seed_everything(config.seed, verbose=False)
    cost, assets = price(config), open_assets(config)
    baseline = None if config.from_scratch else float_baseline(config)
    model, policy = _prepared(config, cost, assets, baseline, join(config.trainer).device)
    policy.project_(model.eval(), 0)
    return model, policy


def _require_start(config: RunConfig) -> None:
    """Raise UserError unless the model file to start from is there and fits: before a corpus is made."""
    if config.start_identity and config.start_file is not None:  # to ask for the identity tells of a missing file
        require_fitting(config.start_file, config)


def _trains(config: RunConfig) -> bool:
    return bool(build_policy(config.policy).trains and config.schedule.steps)


def _prepared(
    config: RunConfig, cost: Price, assets: Assets, baseline: Path | None, device: torch.device
) -> tuple[RNNT, QuantPolicy]:
    """The model on the device where it is trained, its slots filled and calibrated, and the policy that did it."""
    model, policy = _new_model(config, assets, baseline).to(device), build_policy(config.policy)
    _require_frames(model.encoder.chunk_frames, config, assets)
    if branching := model.encoder.branching:
        branching.before_quantization()
    fill_slots(model, policy, cost.bit_map, config.schedule.steps, _passes(model, config, assets))
    return model, policy


def _new_model(config: RunConfig, assets: Assets, baseline: Path | None) -> RNNT:
    model = RNNT(config.model, config.features, assets.tokenizer.size)
    if baseline is not None:
        fill_packed(model, PackedModel.load(baseline / MODEL_FILE))
        return model
    model.encoder.normalize.fit(*map(torch.from_numpy, mean_std(assets.train)))
    return model


def _require_frames(needed: int, config: RunConfig, assets: Assets) -> None:
    """Raise UserError if the shortest utterance, or what augmentation makes of it, has fewer frames than `needed`."""
    shortest, augment = int(assets.train.lengths.min()), config.augment
    augments = _trains(config) and augment.speed and config.schedule.augment_from < 1
    speed = max(*augment.speed_range, 1.0) if augments else 1.0
    if stretched_length(shortest, speed) < needed:
        faster = f", {stretched_length(shortest, speed)} at a speed of {speed:g} (augment)," if speed > 1 else ","
        raise UserError(
            f"data.train: {config.data.train} has an utterance of {shortest} frames{faster} but the encoder needs "
            f"{needed} for one of its own; leave it out, or raise features.tail_ms."
        )


@torch.no_grad()
def _passes(model: RNNT, config: RunConfig, assets: Assets) -> Iterator[None]:
    """Run the model over a few training batches, without augmentation."""
    schedule = config.schedule
    batches = BatchSampler(assets.train.lengths, schedule.batch_size, config.seed, schedule.batch_frames).batches(1)
    for indices in batches[:CALIBRATION_BATCHES]:
        batch = collate(assets.train, indices).to(model.device)
        model(batch.features, batch.feature_lengths, batch.targets)
        yield
