"""Checkpoints are written whole while a model trains, and a Ctrl-C leaves one."""

import signal
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L

from qstudy.files import replacing
from qstudy.training.checkpoint import CHECKPOINT_FILE, KEY


class Interrupted(BaseException):
    """Ctrl-C while training. Not a KeyboardInterrupt, because Lightning turns that into exit code 1."""


class Checkpoint(L.Callback):
    """Saves `folder/last.ckpt` every few steps, at the end, at the first Ctrl-C or SIGTERM after the step in flight.

    Lightning's ModelCheckpoint does neither the last, nor does it tell of a full disk in one sentence, nor write beside
    the old file: fsspec moves the new one from the system's temporary folder, which can be cut short.
    """

    def __init__(self, folder: Path, every: int, description: Mapping[str, Any]) -> None:
        """Args: of the run; steps between two; what the file says of itself, plain values."""
        self.path = folder / CHECKPOINT_FILE
        self.every = every
        self.description = dict(description)
        self._interrupted = False
        self._previous: dict[signal.Signals, Any] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note who listens before Lightning does: its handler holds the Trainer, and with it the model."""
        signals = (signal.SIGINT, signal.SIGTERM) if _main_thread() else ()
        self._previous = {number: signal.getsignal(number) for number in signals}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen for Ctrl-C, and for SIGTERM, at which Lightning would end between two steps, with exit code 0."""
        for number in self._previous:
            signal.signal(number, self._interrupt)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time, or when asked to stop."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # within a step
        # Ctrl-C reaches the devices' processes at different moments; they stop after the same step
        interrupted = trainer.strategy.reduce_boolean_decision(self._interrupted, all=False)
        last = trainer.global_step == trainer.max_steps
        if trainer.global_step % self.every == 0 or last or interrupted:
            self._save(trainer)
        if interrupted:
            raise Interrupted

    def _save(self, trainer: L.Trainer) -> None:
        """One process writes; all of them take part."""
        with replacing(self.path) if trainer.is_global_zero else nullcontext(self.path) as path:
            trainer.save_checkpoint(path)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Make the file describe itself."""
        checkpoint[KEY] = self.description

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give Ctrl-C back; Lightning, which restores what it found, comes later.

        Raises:
            Interrupted: somebody asked to stop after the last step, while the dev set was evaluated.
        """
        self._restore()
        if trainer.strategy.reduce_boolean_decision(self._interrupted, all=False):
            raise Interrupted

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give Ctrl-C back."""
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _interrupt(self, *_: Any) -> None:
        if self._interrupted:  # asked twice: do not wait for the step
            raise Interrupted
        self._interrupted = True


def _main_thread() -> bool:
    import threading

    return threading.current_thread() is threading.main_thread()
