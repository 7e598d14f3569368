"""Rows: an LSTM layer's step on a GPU, its time loop from CUDA graphs, beside the loop launched kernel by kernel.

The floor is `nn.LSTM`, which is cuDNN's there.
"""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn

from benchmarks.lstm_sides import POLICIES, Step, layer_step, quantized
from benchmarks.row import Row
from benchmarks.timing import interleaved
from qstudy.quant.layers import LSTM

NAMES = ("fake W8A8", "native W8A8")
SHAPES = ((16, 75, 256), (32, 400, 640))
"""(B, T, H): the digits' encoder, and one for whole sentences."""
ROUNDS = 15
NO_GPU = "" if torch.cuda.is_available() else "no GPU"


def rows() -> Iterable[Row]:
    """One row per size and arithmetic."""
    for shape in SHAPES:
        times = {} if NO_GPU else interleaved(sides(*shape), ROUNDS)
        for name in NAMES:
            yield Row(
                what=f"LSTM step on the GPU, {name}, {' x '.join(map(str, shape))}",
                unit="ms",
                peer="without graphs",
                ours=times.get(name),
                theirs=times.get(f"{name}, without graphs"),
                floor_is="nn.LSTM",
                floor=times.get("float"),
                skipped=NO_GPU,
            )


def sides(batch: int, frames: int, size: int) -> dict[str, Step]:
    """Ours with and without graphs, and `nn.LSTM` (`float`)."""
    torch.manual_seed(0)
    x = torch.randn(batch, frames, size, device="cuda", requires_grad=True)
    layer = LSTM(size, size).cuda()
    found = {"float": finished(partial(layer_step, layer, x))}
    for name in NAMES:
        model = quantized(nn.Sequential(layer), POLICIES[name], lambda model: model(x))[0]
        found[name] = finished(partial(layer_step, model, x))
        found[f"{name}, without graphs"] = finished(partial(layer_step, model, x, without_kernels=True))
    return found


def finished(step: Callable[[], object]) -> Step:
    """The step, and the wait until the GPU has done it."""

    def whole() -> None:
        step()
        torch.cuda.synchronize()

    return whole
