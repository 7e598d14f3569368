"""The processes that train one model together, one per device: Lightning starts them and lets them talk."""

from dataclasses import asdict
from functools import cache
from typing import Any

from lightning import Fabric

from qstudy.errors import UserError
from qstudy.training.config import TrainerConfig


def join(trainer: TrainerConfig) -> Fabric:
    """Start the processes of all devices, or join them: each runs the same command, and is at the same place in it.

    What must be agreed on before Lightning's Trainer begins (who makes a corpus, who trains a baseline) needs them all
    from the start; the Trainer then finds them. Of one device it does nothing.

    Raises:
        UserError: there are no such devices, or they cannot be started.
    """
    return _join(**asdict(trainer))


@cache
def _join(**settings: Any) -> Fabric:
    try:
        fabric = Fabric(**settings)
        fabric.launch()
    except Exception as error:  # Lightning's own and torch's: each has its reasons
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error
    return fabric
