"""The training loop: Lightning's Trainer over batches that a resumed run finds again."""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from tqdm import tqdm

from qstudy.data.augment import Augment
from qstudy.data.batches import Batch, BatchSampler, collate
from qstudy.data.metrics import word_errors
from qstudy.training.assets import Assets
from qstudy.training.checkpoint import Checkpoint, Interrupted, steps_done
from qstudy.training.config import RunConfig
from qstudy.training.evaluation import recognize
from qstudy.training.module import TransducerModule
from qstudy.training.precision import used_precision

Report = Callable[[int, float], None]
"""Called with (step, dev WER) while training; may raise to stop it."""


class StepBatches:
    """Batch number `step` of a run, for ever; the same after a resume."""

    def __init__(self, config: RunConfig, assets: Assets, augment: Augment) -> None:
        self.features = assets.train
        self.seed = config.seed
        self.sampler = BatchSampler(assets.train.lengths, config.schedule.batch_size, config.seed)
        self.augment = augment
        self.augment_from = int(config.schedule.augment_from * config.schedule.steps)
        self.first_epoch = 0 if config.from_scratch else 1  # epoch 0 runs from short to long: for beginners
        self.step = 0

    def __iter__(self) -> Iterator[Batch]:
        """From `step` on."""
        step, current, plan = self.step, -1, list[list[int]]()
        while True:
            epoch, position = divmod(step, len(self.sampler))
            epoch += self.first_epoch
            if epoch != current:
                current, plan = epoch, self.sampler.batches(epoch)
            augment = self.augment if step >= self.augment_from else None
            yield collate(self.features, plan[position], augment, self.seed, epoch)
            step += 1


@dataclass
class Progress(L.Callback):
    """Shows the run and remembers what its record needs: losses and step times."""

    # `log` would be overwritten: Lightning gives every callback one of its own.

    name: str
    steps: int
    write: Callable[[dict[str, float], int], None]
    losses: list[float] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar."""
        self._bar = tqdm(total=self.steps, initial=trainer.global_step, desc=self.name, unit="step", disable=None)

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the clock of a step."""
        self._begin = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        """Note loss and time."""
        self.losses.append(float(outputs["loss"]))
        self.step_s.append(time.perf_counter() - self._begin)
        step = trainer.global_step
        self._bar.update()
        if step % 20 == 0 or step == self.steps:
            loss = float(np.mean(self.losses[-20:]))
            self._bar.set_postfix(loss=f"{loss:.3f}")
            self.write({"loss": loss, "learning_rate": trainer.optimizers[0].param_groups[0]["lr"]}, step)
            tenth = max(self.steps // 10 // 20 * 20, 20)
            if not sys.stderr.isatty() and (step % tenth == 0 or step == self.steps):
                print(f"{self.name}: step {step}/{self.steps}, loss {loss:.3f}", file=sys.stderr, flush=True)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the bar."""
        if hasattr(self, "_bar"):
            self._bar.close()

    def state_dict(self) -> dict[str, Any]:
        """Kept in checkpoints, so that a resumed run's record covers all of it."""
        return {"losses": self.losses, "step_s": self.step_s}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.losses, self.step_s = state_dict["losses"], state_dict["step_s"]

    def summary(self) -> dict[str, Any]:
        """Steps, milliseconds per step, seconds, first and last losses (means of up to 20 steps)."""
        times = np.array(self.step_s)
        return {
            "steps": len(self.losses),
            "step_ms": {"median": 1e3 * float(np.median(times)), "p95": 1e3 * float(np.percentile(times, 95))},
            "train_seconds": float(times.sum()),
            "loss": {"first": float(np.mean(self.losses[:20])), "last": float(np.mean(self.losses[-20:]))},
        }


class DevEvaluation(L.Callback):
    """Every so many steps, the word error rate on the dev set."""

    def __init__(
        self, every: int, assets: Assets, write: Callable[[dict[str, float], int], None], report: Report
    ) -> None:
        self.every, self.assets, self.write, self.report = every, assets, write, report

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: TransducerModule, *_: Any) -> None:  # type: ignore[override]
        """Evaluate when it is time; the last step is left to the run's own evaluation."""
        step = trainer.global_step
        if not self.every or step % self.every or step == trainer.max_steps:
            return
        hypotheses, _seconds = recognize(pl_module.model, self.assets.dev, self.assets.tokenizer)
        wer = word_errors(self.assets.dev.texts, hypotheses).rate
        self.write({"dev_wer": wer}, step)
        self.report(step, wer)


def fit(
    module: TransducerModule,
    config: RunConfig,
    assets: Assets,
    folder: Path,
    name: str,
    log: Callable[[dict[str, float], int], None],
    report: Report | None = None,
) -> dict[str, Any]:
    """Train in `folder`, from its checkpoint if there is one.

    Args:
        module: model, policy and losses.
        config: the run.
        assets: the data.
        folder: of the run.
        name: shown beside the progress.
        log: takes metrics and their step.
        report: takes the dev WER while training; may raise to stop.

    Returns:
        What the record says of the training: steps, step_ms, train_seconds, loss, precision.
    """
    _quiet()
    schedule = config.schedule
    precision = used_precision(schedule.precision)
    mean = module.model.encoder.normalize.mean.cpu().numpy()
    batches = StepBatches(config, assets, Augment(config.augment, config.features, mean))
    progress = Progress(name, schedule.steps, log)
    checkpoint = Checkpoint(folder, schedule.checkpoint_every, config, assets.tokenizer)
    callbacks: list[L.Callback] = [
        progress,
        DevEvaluation(schedule.evaluate_every, assets, log, report or _ignore),
        checkpoint,
    ]
    trainer = L.Trainer(
        max_steps=schedule.steps,
        precision=precision,
        gradient_clip_val=schedule.clip,
        callbacks=callbacks,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        devices=1,
    )
    resume = checkpoint.path if checkpoint.path.exists() else None
    if resume is not None:
        batches.step = steps_done(resume, config)
    module.train()
    try:
        trainer.fit(module, batches, ckpt_path=resume, weights_only=True)
    except Interrupted:
        raise KeyboardInterrupt from None
    return {**progress.summary(), "precision": precision}


def _ignore(step: int, wer: float) -> None:
    pass


def _quiet() -> None:
    """Lightning's remarks on GPUs, workers and intervals are not the user's business."""
    for logger in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
