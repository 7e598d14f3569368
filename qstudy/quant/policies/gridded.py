"""What policies over grids share: calibration, and the schedule of activation observers."""

from collections.abc import Iterable
from typing import Annotated

from annotated_types import Ge, Le
from torch import nn

from qstudy.bits import BitPatterns
from qstudy.quant.arithmetics.gridded import GriddedArithmetic
from qstudy.quant.grids import activation_grids
from qstudy.quant.layers import quantizable
from qstudy.quant.policies.base import QuantPolicy

Step = Annotated[int, Ge(0), Le(10**9)]
"""Optimizer steps, counted from 0."""


class GriddedPolicy(QuantPolicy):
    """A policy whose arithmetics keep their numbers on grids: weights first, activations later, then frozen."""

    def __init__(self, layers: BitPatterns, activation_start: Step = 0, freeze_step: Step | None = None) -> None:
        """
        Args:
            layers: ordered glob patterns over layer names -> widths.
            activation_start: activations stay in float, only watched, before this step.
            freeze_step: activation ranges stop moving at this step; None: never.

        Raises:
            UserError: a step below zero.
        """
        super().__init__(layers)
        self.activation_start = activation_start
        self.freeze_step = freeze_step

    def calibrate(self, model: nn.Module, passes: Iterable[None]) -> None:
        slots = [(layer.arithmetic, layer.matrices()) for layer in quantizable(model).values()]
        gridded = [(slot, matrices) for slot, matrices in slots if isinstance(slot, GriddedArithmetic)]
        for arithmetic, matrices in gridded:
            arithmetic.calibrate(matrices)
        for grid in activation_grids(model):
            grid.observing, grid.enabled = True, False
        for _ in passes:
            pass
        for grid in activation_grids(model):
            grid.settle()
        for arithmetic, matrices in gridded:
            arithmetic.settle(matrices)
        self.project_(model, 0)

    def project_(self, model: nn.Module, step: int) -> None:
        frozen = self.freeze_step is not None and step >= self.freeze_step
        for grid in activation_grids(model):
            grid.enabled = step >= self.activation_start
            grid.observing = not (grid.trained or grid.settled or frozen) and self.trains and model.training
