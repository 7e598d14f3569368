"""What trainings share, whatever they train: the policy in place at their start, and what is said when they diverge."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from qstudy.bits import BitMap
from qstudy.errors import Diverged
from qstudy.quant.policies import QuantPolicy
from qstudy.quant.watching import watching
from qstudy.training.config import Optimization

CALIBRATION_BATCHES = 8


def fill_slots(model: nn.Module, policy: QuantPolicy, bit_map: BitMap, steps: int, passes: Iterable[object]) -> None:
    """Fill the slots of a model and calibrate what fills them.

    Args:
        model: on the device where it is trained.
        policy: what fills them.
        bit_map: the policy's widths.
        steps: of the training.
        passes: runs the model over the next of `CALIBRATION_BATCHES` batches, each time that it is asked.

    Raises:
        UserError: the training would end before activations are quantized.
    """
    policy.require_steps(steps)
    policy.total_steps = steps
    policy.prepare(model, bit_map)
    with watching(model):
        policy.calibrate(model, passes)


@contextmanager
def naming_rate(name: str, schedule: Optimization) -> Iterator[None]:
    """Within, a training that diverges says which learning rate it had; `name` is the schedule's."""
    try:
        yield
    except Diverged as error:
        rate = f"{name}.learning_rate is {schedule.learning_rate:g}"
        raise Diverged(f"{str(error).removesuffix('.')} ({rate}).") from error
