"""The training loop: Lightning's Trainer over batches that a resumed run finds again."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler
from tqdm import tqdm

from qstudy.data.augment import Augment
from qstudy.data.module import SpeechData
from qstudy.data.sampler import BatchSampler, PieceSampler
from qstudy.errors import Diverged
from qstudy.training.assets import Assets
from qstudy.training.checkpoint import description, steps_done
from qstudy.training.config import RunConfig, Schedule, TrainerConfig
from qstudy.training.devices import join, quiet_lightning, used_precision
from qstudy.training.module import TransducerModule
from qstudy.training.policy_module import PASS_LOSS, PolicyModule
from qstudy.training.saving import Checkpoint, Interrupted

Report = Callable[[int, float], None]
"""Called with (step, dev WER) while training; may raise to stop it."""

LOG_EVERY = 20  # steps
GPU_WORKERS = 4
BY_STEP = ("losses", "step_s", "wait_s")
"""What `Progress` notes of every step."""


class Waiting(Profiler):
    """Lightning's stopwatch for one of its actions: how long the training waits for its next batch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def start(self, action_name: str) -> None:
        """Start the clock."""
        if action_name.endswith("train_dataloader_next"):
            self._begin = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """Stop the clock."""
        if action_name.endswith("train_dataloader_next"):
            self.seconds.append(time.perf_counter() - self._begin)

    def summary(self) -> str:
        """Nothing to print: the record says it."""
        return ""


@dataclass
class Progress(L.Callback):
    """Shows the run and remembers what its record needs: losses and step times.

    Lightning's bars count the batches of an epoch; a run is measured in steps, whose epochs nobody need know, and is
    often watched in a log file, where a bar says nothing.
    """

    # `log` would be overwritten: Lightning gives every callback one of its own.

    name: str
    steps: int
    waiting: Waiting
    losses: list[float] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)
    wait_s: list[float] = field(default_factory=list)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar."""
        hidden = None if trainer.is_global_zero else True
        self._bar = tqdm(total=self.steps, initial=trainer.global_step, desc=self.name, unit="step", disable=hidden)
        self._pieces: list[tuple[float, float]] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the clock."""
        self._begin = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Note time and loss, averaged over devices; a step may take several passes.

        Raises:
            Diverged: the loss is no number; before a checkpoint could keep what came of it.
        """
        self._pieces.append((float(trainer.callback_metrics[PASS_LOSS]), time.perf_counter() - self._begin))
        if len(self._pieces) < trainer.accumulate_grad_batches:
            return
        losses, seconds = zip(*self._pieces, strict=True)
        self._pieces.clear()
        self.losses.append(float(np.mean(losses)))
        self.step_s.append(sum(seconds))
        self.wait_s.append(sum(self.waiting.seconds))
        trainer.lightning_module.log_dict({"loss": self.losses[-1], "step_ms": 1e3 * self.step_s[-1]})
        self.waiting.seconds.clear()
        if not np.isfinite(self.losses[-1]):
            raise Diverged(
                f"The loss became {self.losses[-1]} at step {trainer.global_step - 1}; lower the learning rate or the "
                "policy's penalty, and start again."
            )
        if trainer.is_global_zero:
            self._show(trainer.global_step)

    def _show(self, step: int) -> None:
        self._bar.update()
        if step % LOG_EVERY and step != self.steps:
            return
        loss = float(np.mean(self.losses[-LOG_EVERY:]))
        self._bar.set_postfix(loss=f"{loss:.3f}")
        tenth = max(self.steps // 10 // LOG_EVERY * LOG_EVERY, LOG_EVERY)
        if not sys.stderr.isatty() and (step % tenth == 0 or step == self.steps):
            print(f"{self.name}: step {step}/{self.steps}, loss {loss:.3f}", file=sys.stderr, flush=True)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the bar."""
        if hasattr(self, "_bar"):
            self._bar.close()

    def state_dict(self) -> dict[str, Any]:
        """Kept in checkpoints, so that a resumed run's record covers all of it: float64 tensors, because who reads a
        checkpoint counts plain values (`qstudy.training.checkpoint_file`)."""
        return {name: torch.tensor(getattr(self, name), dtype=torch.float64) for name in BY_STEP}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint; those of earlier versions hold lists."""
        for name in BY_STEP:
            setattr(self, name, torch.as_tensor(state_dict[name], dtype=torch.float64).tolist())

    def summary(self) -> dict[str, Any]:
        """Steps, milliseconds per step, seconds, share of waiting for data, first and last losses (of up to 20 steps).

        The first batch does not count as waiting: loader processes have to start.
        """
        times, waits = np.array(self.step_s), np.array(self.wait_s[1:])
        return {
            "steps": len(self.losses),
            "step_ms": {"median": 1e3 * float(np.median(times)), "p95": 1e3 * float(np.percentile(times, 95))},
            "train_seconds": float(times.sum()),
            "data_wait": float(waits.sum() / max(waits.sum() + times[1:].sum(), 1e-9)),
            "loss": {"first": float(np.mean(self.losses[:20])), "last": float(np.mean(self.losses[-20:]))},
        }


@dataclass
class DevReport(L.Callback):
    """Tells a study the word error rate on the dev set, each time that Lightning has evaluated it."""

    report: Report

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report it; the last step is left to the run's own evaluation."""
        if trainer.global_step < trainer.max_steps:
            self.report(trainer.global_step, float(trainer.callback_metrics["dev_wer"]))


def _evaluations(schedule: Schedule) -> dict[str, Any]:
    """When the trainer evaluates."""
    return {
        "val_check_interval": (schedule.evaluate_every or 1) * schedule.accumulate,
        "limit_val_batches": None if schedule.evaluate_every else 0,
    }


def fit(
    module: TransducerModule,
    config: RunConfig,
    assets: Assets,
    folder: Path,
    name: str,
    logger: Logger | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Train in `folder`, from its checkpoint if there is one.

    Args:
        module: model, policy and losses.
        config: the run.
        assets: the data.
        folder: of the run.
        name: shown beside the progress.
        logger: takes metrics.
        report: takes the dev WER while training; may raise to stop.

    Returns:
        What the record says of the training: steps, step_ms, train_seconds, data_wait, loss, precision.
    """
    callbacks: list[L.Callback] = [DevReport(report)] if report else []
    callbacks += [LearningRateMonitor("step")] if logger else []
    checkpoint = Checkpoint(folder, config.schedule.checkpoint_every, description(config, assets.tokenizer))
    if checkpoint.path.exists():
        steps_done(checkpoint.path, config)
    data = speech_data(module, config, assets, join(config.trainer).device.type)
    parts = {"logger": logger or False, **_evaluations(config.schedule)}
    return fit_module(module, data, config.trainer, checkpoint, name, callbacks, **parts)


def fit_module(
    module: PolicyModule,
    data: L.LightningDataModule,
    devices: TrainerConfig,
    checkpoint: Checkpoint,
    name: str,
    callbacks: Sequence[L.Callback] = (),
    **parts: Any,
) -> dict[str, Any]:
    """Train any module by its schedule, from its checkpoint if there is one.

    Args:
        module: model, policy and loss.
        data: its batches.
        devices: where it is trained.
        checkpoint: in the folder of the run; one that is there is of this run.
        name: shown beside the progress.
        callbacks: of Lightning's, beside ours.
        parts: of Lightning's Trainer, as they are.

    Returns:
        As `fit`.
    """
    schedule, waiting = module.schedule, Waiting()
    precision = used_precision(schedule.precision, devices.accelerator)
    progress = Progress(name, schedule.steps, waiting)
    with quiet_lightning():
        trainer = L.Trainer(
            **_devices(devices),
            max_steps=schedule.steps,
            precision=precision,
            gradient_clip_val=schedule.clip,
            accumulate_grad_batches=schedule.accumulate,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            inference_mode=False,  # what the policies cache while evaluating, they use again in training
            use_distributed_sampler=False,  # the data modules deal out the shares
            log_every_n_steps=LOG_EVERY,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            profiler=waiting,
            callbacks=[progress, checkpoint, *callbacks],
            default_root_dir=checkpoint.path.parent,
            **parts,
        )
        resume = checkpoint.path if checkpoint.path.exists() else None
        module.train()
        try:
            trainer.fit(module, data, ckpt_path=resume, weights_only=True)
        except Interrupted:
            raise KeyboardInterrupt from None
    return {**progress.summary(), "precision": precision}


def speech_data(module: TransducerModule, config: RunConfig, assets: Assets, device: str) -> SpeechData:
    """The batches of a run: which, and made by how many processes per device (of a kind: `cpu`, `cuda`)."""
    schedule = config.schedule
    mean = module.model.encoder.normalize.mean.cpu().numpy()
    batches = BatchSampler(assets.train.lengths, schedule.batch_size, config.seed, schedule.batch_frames)
    pieces = PieceSampler(
        batches,
        first_epoch=0 if config.from_scratch else 1,
        augment_from=int(schedule.augment_from * schedule.steps),
        accumulate=schedule.accumulate,
    )
    workers = config.data.workers
    if workers is None:
        workers = 0 if device == "cpu" else GPU_WORKERS
    augment = Augment(config.augment, config.features, mean)
    return SpeechData(assets.train, assets.dev, augment, pieces, config.seed, workers)


def _devices(trainer: TrainerConfig) -> dict[str, Any]:
    """The Trainer's arguments; several devices must bear that the CTC phase trains the encoder alone."""
    several = join(trainer).world_size > 1
    strategy = "ddp_find_unused_parameters_true" if several and trainer.strategy == "auto" else trainer.strategy
    return {**asdict(trainer), "strategy": strategy}
