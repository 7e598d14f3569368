"""The processes that train one model together, one per device: Lightning starts them and lets them talk."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from typing import Any

from lightning import Fabric

from qstudy.errors import UserError
from qstudy.training.config import TrainerConfig

OUT_OF_PLACE = (
    "does not have many workers",  # `data.workers` is the user's choice
    "GPU available but not used",  # so is the accelerator
    "was configured so validation will run",  # which is what `evaluate_every` asks for
    "treespec, LeafSpec",  # Lightning's own use of torch
)
"""Lightning's advice that does not fit here."""


def join(trainer: TrainerConfig) -> Fabric:
    """Start the processes of all devices, or join them: each runs the same command, and is at the same place in it.

    What must be agreed on before Lightning's Trainer begins (who makes a corpus, who trains a baseline) needs them all
    from the start; the Trainer then finds them. Of one device it does nothing.

    Raises:
        UserError: there are no such devices, or they cannot be started.
    """
    with _one_sentence(), calm():
        return _launched(**asdict(trainer))


def check_devices(trainer: TrainerConfig) -> None:
    """Raise UserError unless there are such devices; starts nothing."""
    with _one_sentence(), calm():
        _fabric(**asdict(trainer))


@cache
def _fabric(**settings: Any) -> Fabric:
    return Fabric(**settings)


@cache
def _launched(**settings: Any) -> Fabric:
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
def calm() -> Iterator[None]:
    """Keep back what Lightning tells of devices and some of its advice; other warnings are the user's business."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            for message in OUT_OF_PLACE:
                warnings.filterwarnings("ignore", message=f".*{message}")
            for logger in loggers:
                logger.setLevel(logging.WARNING)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
