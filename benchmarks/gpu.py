"""Rows: on a GPU, an LSTM layer's step, its time loop from CUDA graphs, beside the loop launched kernel by kernel; and
the transducer's head, its time and the memory on top of what it gets.

The reference of the first is `nn.LSTM`, which is cuDNN's there, in float32.
"""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn

from benchmarks import head
from benchmarks.head_problem import SHAPES as HEADS
from benchmarks.head_problem import SIDES as HEAD_SIDES
from benchmarks.head_problem import HeadProblem
from benchmarks.lstm_sides import POLICIES, Step, layer_step, quantized
from benchmarks.memory import MEBIBYTE
from benchmarks.problem import size_text
from benchmarks.row import Row
from benchmarks.timing import interleaved
from qstudy.quant.layers import LSTM

NAMES = ("fake W8A8", "native W8A8")
SHAPES = ((16, 75, 256), (32, 400, 640))
"""(B, T, H): the digits' encoder, and one for whole sentences."""
ROUNDS = 15
PEER = "whole logits"
"""Of the head: their loss is torchaudio's kernel on a GPU, so that there is no other."""
NO_GPU = "" if torch.cuda.is_available() else "no GPU"


def rows() -> Iterable[Row]:
    """Of both."""
    yield from lstm_rows()
    for shape in HEADS:
        yield from head_rows(shape)


def head_rows(shape: tuple[int, ...]) -> Iterable[Row]:
    """The head's time and memory beside each peer's, at one size."""
    times, peaks = ({}, {}) if NO_GPU else measured_head(shape)
    what = f"transducer's head on the GPU, {size_text(shape)}"
    gradients = sum(each.numel() * each.element_size() for each in head.tensors(shape)) / MEBIBYTE
    milliseconds = (times.get("ours"), times.get(PEER), "3 products", times.get("products"))
    yield Row(what, "ms", PEER, *milliseconds, NO_GPU)
    memory = (peaks.get("ours"), peaks.get(PEER), "gradients", gradients)
    yield Row(f"transducer's head, memory on the GPU, {size_text(shape)}", "MiB", PEER, *memory, NO_GPU)


def measured_head(shape: tuple[int, ...]) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds and mebibytes by side."""
    problem = HeadProblem.random(*shape).to("cuda")
    jobs = {name: finished(partial(HEAD_SIDES[name], problem)) for name in ("ours", PEER, "products")}
    return interleaved(jobs, ROUNDS), {name: peak(problem, job) for name, job in jobs.items()}


def peak(problem: HeadProblem, job: Step) -> float:
    """What a side allocates on top of the problem, MiB."""
    problem.labels()  # whose gradients are forgotten
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    job()
    return (torch.cuda.max_memory_allocated() - before) / MEBIBYTE


def lstm_rows() -> Iterable[Row]:
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
                reference_is="nn.LSTM",
                reference=times.get("float"),
                skipped=NO_GPU,
            )


def sides(batch: int, frames: int, size: int) -> dict[str, Step]:
    """Ours with and without graphs, and `nn.LSTM` (`float`) in float32; by default cuDNN's is in TF32, ours is not."""
    torch.backends.cudnn.allow_tf32 = False
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
