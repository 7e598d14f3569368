"""In which arithmetic the unquantized parts are trained: what `precision: auto` means on this machine."""

from typing import Literal

import torch

from qstudy.errors import UserError
from qstudy.quant import bfloat16
from qstudy.training.config import Precision, RunConfig

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
