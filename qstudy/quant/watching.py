"""Calibration looks at a model as it will be used: it evaluates, and only its quantizers are as in training."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from qstudy.quant.layers import quantizable


@contextmanager
def watching(model: nn.Module) -> Iterator[None]:
    """Within, the model evaluates (no dropout, no statistics of batches), while its arithmetics watch their inputs as
    in training; afterwards all is as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    for layer in quantizable(model).values():
        if layer.arithmetic is not None:
            layer.arithmetic.train()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
