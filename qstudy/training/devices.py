"""Which devices a run trains on, and in which precision."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import torch

from qstudy.errors import UserError
from qstudy.quant import bfloat16
from qstudy.training.config import Precision, RunConfig, TrainerConfig

if TYPE_CHECKING:  # it takes seconds to import, which what only plans or reads is spared
    from lightning import Fabric

OUT_OF_PLACE = (
    "does not have many workers",  # `data.workers` is the user's choice
    "GPU available but not used",  # so is the accelerator
    "was configured so validation will run",  # which is what `evaluate_every` asks for
    "treespec, LeafSpec",  # Lightning's own use of torch
)
"""Lightning's advice that does not fit here."""
SRUN = "`srun` command is available"
"""The same where a SLURM job has one node, or there is none: there nothing is left to start."""
PATIENCE = timedelta(days=7)
"""How long processes wait for each other; not for ever, lest they hold GPUs where the first one has died."""
PATIENT = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")
"""Strategies that, where there are several devices, are DistributedDataParallel in processes of their own."""


def join(trainer: TrainerConfig) -> "Fabric":
    """Start the processes of all devices, or join them: each runs the same command, and is at the same place in it.

    What must be agreed on before Lightning's Trainer begins (who makes a corpus, who trains a baseline) needs them all
    from the start; the Trainer then finds them. Of one device it does nothing.

    Raises:
        UserError: there are no such devices, or they cannot be started.
    """
    with _one_sentence(), quiet_lightning():
        return _launched(**asdict(trainer))


def check_devices(trainer: TrainerConfig) -> None:
    """Raise UserError unless there are such devices; starts nothing."""
    with _one_sentence(), quiet_lightning():
        _fabric(**asdict(trainer))


@cache
def _fabric(**settings: Any) -> "Fabric":
    """The processes that a configuration asks for, not yet started.

    Lightning's DistributedDataParallel gives up where one process waits for another for half an hour. Ours wait for the
    first one's evaluation, or for a baseline that another run trains. The Trainer takes the group that is made here.
    """
    from lightning import Fabric
    from lightning.fabric.strategies import DDPStrategy

    fabric = Fabric(**settings)
    launcher = fabric.strategy.launcher
    in_notebook = launcher is not None and launcher.is_interactive_compatible
    if type(fabric.strategy) is not DDPStrategy or settings["strategy"] not in PATIENT or in_notebook:
        return fabric
    return Fabric(**{**settings, "strategy": DDPStrategy(timeout=PATIENCE)})


@cache
def _launched(**settings: Any) -> "Fabric":
    fabric = _fabric(**settings)
    fabric.launch()
    return fabric


@contextmanager
def _one_sentence() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Lightning's own and torch's: each has its reasons
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep back what Lightning tells of devices and some of its advice; other warnings are the user's business."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            one_node = os.environ.get("SLURM_NNODES", "1") == "1"
            for message in (*OUT_OF_PLACE, *([SRUN] if one_node else [])):
                warnings.filterwarnings("ignore", message=f".*{message}")
            for logger in loggers:
                logger.setLevel(logging.WARNING)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


Used = Literal["bf16-mixed", "32-true"]


def used_precision(asked: Precision, accelerator: str = "auto") -> Used:
    """What a training computes in; the configuration keeps what was asked, so that one study fits all machines.

    Args:
        asked: `auto`: bfloat16 where the device multiplies in it, else float32.
        accelerator: Lightning's: `auto` is a GPU if there is one, else the processor.

    Raises:
        UserError: bfloat16 was asked for, and the device cannot compute in it.
    """
    kind = _device(accelerator)
    if asked == "auto":
        return "bf16-mixed" if bfloat16.multiplies(kind) else "32-true"
    if asked == "bf16-mixed" and not bfloat16.computes(kind):
        raise UserError(
            f"precision: the device that trains ({kind}) cannot compute in bf16-mixed; say `precision: auto` or"
            " `precision: 32-true` under `training` and `finetune`."
        )
    return asked


def check_precision(config: RunConfig, accelerator: str = "auto") -> None:
    """Before anything is made or trained: can this machine compute as the run and its float baseline ask?

    Raises:
        UserError: it cannot.
    """
    for schedule in (config.training, config.schedule):
        used_precision(schedule.precision, accelerator)


def _device(accelerator: str) -> str:
    """`cpu`, `cuda` or another kind that Lightning trains on."""
    found = None if accelerator == "cpu" else torch.accelerator.current_accelerator(check_available=True)
    return found.type if found else "cpu"
