"""A layer in several widths: an arithmetic for each, of which one computes."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import Tensor, nn

from qstudy.quant.arithmetic import Arithmetic, TrainingArithmetic
from qstudy.quant.packed.arithmetics import PackedArithmetic


class Switch(TrainingArithmetic):
    """Hands every operation to the arithmetic that is chosen; all of them share the layer's weights.

    Each keeps its own quantizers: ranges that suit 2 bits do not suit 8 (Jin et al. 2019, arXiv 1912.09666).
    """

    def __init__(self, arithmetics: Sequence[TrainingArithmetic]) -> None:
        """Args: one for each width; the first computes until another is chosen."""
        super().__init__()
        self.arithmetics = nn.ModuleList(arithmetics)
        self.chosen = 0

    @property
    def active(self) -> TrainingArithmetic:
        """The one that computes."""
        return self.each[self.chosen]

    @property
    def each(self) -> list[TrainingArithmetic]:
        """All of them."""
        return cast(list[TrainingArithmetic], list(self.arithmetics))

    @property
    def packed(self) -> type[PackedArithmetic]:
        return self.active.packed

    @property
    def settings(self) -> dict[str, Any]:
        return self.active.settings

    def calibrate(self, matrices: Sequence[Tensor]) -> None:
        for arithmetic in self.each:
            arithmetic.calibrate(matrices)

    def compute_qparams(self, matrices: Sequence[Tensor]) -> None:
        for arithmetic in self.each:
            arithmetic.compute_qparams(matrices)

    def pack(self, matrices: Sequence[Tensor]) -> dict[str, Tensor]:
        return self.active.pack(matrices)


def _by_active(name: str) -> Callable[..., Any]:
    def operation(self: Switch, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.active, name)(*args, **kwargs)

    return operation


for _name, _ in inspect.getmembers(Arithmetic, inspect.isfunction):
    if _name in vars(Arithmetic) and not _name.startswith("_"):  # what a layer may ask for, later additions included
        setattr(Switch, _name, _by_active(_name))
