"""Time loops from graphs, cut into chunks, against the same loops at once: to the bit.

On the processor a plain call stands for a graph's replay; the rest, cutting, buffers and what is kept, is the same.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qstudy.quant.integer.accumulator import QParams, recorded_accumulators
from qstudy.quant.kernels import SWITCH
from qstudy.quant.quantizers import integer_type
from qstudy.quant.recurrence import FROM_GRAPHS, IN_TORCH, compiled, graphed, loops
from qstudy.quant.recurrence import frames as recurrence
from qstudy.quant.recurrence.graphed import CHUNK, SHORT, WARM_UP, Graph, Graphs, kind_of, pieces, twin
from qstudy.quant.recurrence.loop import Loop
from qstudy.quant.recurrence.portable import TorchLoops

LENGTHS = (1, 31, 32, 33, 100)
BATCH, HIDDEN = 3, 8
no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=no_gpu)]
Job = Callable[[TorchLoops, int, int], list[Tensor]]


class Rerun:
    """What a graph does, by calling the function again."""

    captured = 0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def warm_up(self, function: Callable[[], None]) -> None:
        function()

    def capture(self, function: Callable[[], None]) -> None:
        type(self).captured += 1
        self.function = function

    def replay(self) -> None:
        self.function()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Rerun]:
    monkeypatch.setattr(Rerun, "captured", 0)
    return Rerun


def graphs(device: str, kinds: int = 8) -> Graphs:
    return Graphs(Rerun if device == "cpu" else Graph, kinds)


def random(seed: int, device: str, *sizes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator).to(device) for size in sizes]


def float_job(device: str, reuse: bool, dtype: torch.dtype = torch.float32) -> Job:
    def job(by: TorchLoops, frames: int, seed: int) -> list[Tensor]:
        sizes = ((frames, BATCH, 4 * HIDDEN), (BATCH, HIDDEN), (BATCH, HIDDEN), (4 * HIDDEN, HIDDEN))
        inputs, h, c, weight = (each.to(dtype) for each in random(seed, device, *sizes))
        before = inputs.clone()
        scale = torch.tensor(1 / (100 + seed), dtype=dtype, device=device)  # every call has another
        found = by.float_trace(inputs, h.tanh(), c, weight, scale, 7, reuse)
        assert torch.equal(inputs, found[0] if reuse else before)
        return list(found)

    return job


def integer_job(device: str, bits: int, weights: torch.dtype) -> Job:
    def job(by: TorchLoops, frames: int, seed: int) -> list[Tensor]:
        high, top = 2 ** (bits - 1) - 1, torch.iinfo(weights).max
        inputs, h, c, matrix, first, second, bias = random(
            seed,
            device,
            (frames, BATCH, 4 * HIDDEN),
            (BATCH, HIDDEN),
            (BATCH, HIDDEN),
            (4 * HIDDEN, HIDDEN),
            (4 * HIDDEN,),
            (1,),
            (4 * HIDDEN,),
        )
        wide = bits > 8 or weights == torch.int16
        accumulators = (inputs * 2**20).to(torch.float64 if wide else torch.int32)
        accumulators = accumulators.round() if wide else accumulators
        codes = (matrix * top / 3).clamp(-top, top).to(weights)
        qparams = QParams.read(torch.tensor(1 / high, device=device), torch.zeros((), device=device), bits)
        code = torch.round(h.tanh() / qparams.scale).to(integer_type(bits))
        scales = (first * 2.0**-20, second / (top * high))
        return list(by.integer_trace(accumulators, code, c, codes, scales, bias, qparams))

    return job


def gradient_job(device: str) -> Job:
    def job(by: TorchLoops, frames: int, seed: int) -> list[Tensor]:
        gates, cells, weight, dy, dh, dc = random(
            seed,
            device,
            (frames, BATCH, 4 * HIDDEN),
            (frames + 1, BATCH, HIDDEN),
            (4 * HIDDEN, HIDDEN),
            (frames, BATCH, HIDDEN),
            (BATCH, HIDDEN),
            (BATCH, HIDDEN),
        )
        upstream = (dy, dh, dc)
        kept = [each.clone() for each in upstream]
        found = by.trace_gradients(gates.sigmoid(), cells, weight, upstream, torch.float32)
        assert all(torch.equal(one, two) for one, two in zip(upstream, kept, strict=True))
        return list(found)

    return job


JOBS: dict[str, Callable[[str], Job]] = {
    "float": lambda device: float_job(device, reuse=False),
    "float, reuse": lambda device: float_job(device, reuse=True),
    "float64": lambda device: float_job(device, reuse=False, dtype=torch.float64),
    "W8A8": lambda device: integer_job(device, 8, torch.int8),
    "W4A4": lambda device: integer_job(device, 4, torch.int8),
    "W8A16": lambda device: integer_job(device, 16, torch.int8),
    "W16A8": lambda device: integer_job(device, 8, torch.int16),
    "W16A16": lambda device: integer_job(device, 16, torch.int16),
    "gradients": gradient_job,
}


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("job", JOBS)
def test_as_at_once_whatever_came_before(job: str, device: str) -> None:
    """Every length several times, other values each time: launched at first, then replayed, in buffers left dirty."""
    by, work = TorchLoops(graphs(device).run), JOBS[job](device)
    for seed in range(WARM_UP + 2):
        for frames in LENGTHS:
            assert same(work(by, frames, seed), work(IN_TORCH, frames, seed)), (seed, frames)


def test_chunks_are_captured_when_they_come_back(counted: type[Rerun]) -> None:
    by, work = TorchLoops(Graphs(counted).run), float_job("cpu", reuse=False)
    for seed in range(WARM_UP):
        work(by, CHUNK + 1, seed)
    assert counted.captured == 0
    work(by, CHUNK + 1, 0)
    assert counted.captured == 2  # a chunk, and a single frame
    work(by, 3 * CHUNK, 0)
    assert counted.captured == 2
    work(by, (WARM_UP + 1) * CHUNK // 2, 0)
    assert counted.captured == 2  # half a chunk: a first time


def test_one_long_utterance_is_enough(counted: type[Rerun]) -> None:
    float_job("cpu", reuse=False)(TorchLoops(Graphs(counted).run), 10 * CHUNK, 0)
    assert counted.captured == 1


def test_short_ones_run_at_once(counted: type[Rerun]) -> None:
    by, work = TorchLoops(Graphs(counted).run), float_job("cpu", reuse=False)
    for seed in range(2 * WARM_UP):
        work(by, SHORT - 1, seed)
    assert counted.captured == 0


@pytest.mark.parametrize(("kinds", "captured"), [(1, 0), (2, 2)])
def test_kinds_not_used_lately_are_forgotten(kinds: int, captured: int, counted: type[Rerun]) -> None:
    by = TorchLoops(Graphs(counted, kinds).run)
    for seed in range(WARM_UP + 1):
        for job in (float_job("cpu", reuse=True), gradient_job("cpu")):
            job(by, CHUNK, seed)
    assert counted.captured == captured


@pytest.mark.parametrize("frames", [0, *LENGTHS, 2 * CHUNK, 3 * CHUNK - 1])
def test_pieces_are_all_frames_in_order(frames: int) -> None:
    found = pieces(frames)
    assert [t for each in found for t in range(each.start, each.stop)] == list(range(frames))
    sizes = [each.stop - each.start for each in found]
    assert sizes == sorted(sizes, reverse=True)
    assert len(found) <= frames // CHUNK + CHUNK.bit_length() - 1


@pytest.mark.parametrize("device", DEVICES)
def test_evaluated_first_and_trained_afterwards(device: str) -> None:
    """Buffers made in inference mode would refuse to be written outside of it."""
    by, work = TorchLoops(graphs(device).run), float_job(device, reuse=False)
    with torch.inference_mode():
        work(by, CHUNK, 0)
    assert same(work(by, CHUNK, 1), work(IN_TORCH, CHUNK, 1))


@no_gpu
def test_graphs_survive_the_end_of_a_training() -> None:
    """Lightning frees cuBLAS's workspaces then, and torch's cache; graphs that use that memory would write into it."""
    by, work = TorchLoops(graphs("cuda").run), float_job("cuda", reuse=False)
    for seed in range(WARM_UP + 2):
        work(by, CHUNK, seed)
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    others = [torch.zeros(2**20, device="cuda") for _ in range(64)]
    assert same(work(by, CHUNK, 9), work(IN_TORCH, CHUNK, 9))
    assert not any(each.any() for each in others)


def test_recorded_accumulators() -> None:
    work, by = integer_job("cpu", 8, torch.int8), TorchLoops(graphs("cpu").run)
    for seed in range(WARM_UP + 2):
        work(by, 50, seed)  # not recorded: a kind of its own
        with recorded_accumulators() as ours:
            work(by, 50, seed)
        with recorded_accumulators() as theirs:
            work(IN_TORCH, 50, seed)
        assert len(ours) == 1
        assert same(ours, theirs)


def loop_on(device: str, frames: int = 5, high: int = 7) -> Loop:
    sequence, step = torch.empty(frames, BATCH, device=device), torch.ones(())
    return Loop(print, (high,), (step,), (), (), (sequence,), ())


def test_numbers_on_the_host_come_along_to_the_device() -> None:
    assert twin(loop_on("meta"), CHUNK).fixed[0].device.type == "meta"


def test_what_may_not_differ_within_a_kind() -> None:
    assert kind_of(loop_on("cpu", frames=5)) == kind_of(loop_on("cpu", frames=50))
    assert kind_of(loop_on("cpu")) != kind_of(loop_on("cpu", high=127))
    assert kind_of(loop_on("cpu")) != kind_of(loop_on("meta"))


@pytest.mark.parametrize("device", DEVICES)
def test_training_steps_are_the_same(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through autograd, as layers call it: weights that move, and batches of several lengths."""

    def train(by: TorchLoops) -> list[Tensor]:
        monkeypatch.setattr(recurrence, "loops", lambda *operands: by)
        x, h, c, w_input, w_hidden, bias = random(
            0,
            device,
            (BATCH, 70, 5),
            (BATCH, HIDDEN),
            (BATCH, HIDDEN),
            (4 * HIDDEN, 5),
            (4 * HIDDEN, HIDDEN),
            (4 * HIDDEN,),
        )
        trained = [each.requires_grad_() for each in (x, h, c, w_input, w_hidden, bias)]
        for frames in (70, 33, 70, 70, 33, 12, 70):
            state = (h.tanh().unsqueeze(0), c.unsqueeze(0))
            scale = torch.tensor(1 / 127, device=device)
            y, after = recurrence.quantized_lstm(x[:, :frames], state, w_input, w_hidden, bias, scale, 127)
            (y.square().sum() + after[0].sum() + after[1].sum()).backward()
            with torch.no_grad():
                for each in trained:
                    assert each.grad is not None
                    each -= 0.01 * each.grad
        return trained

    assert same(train(TorchLoops(graphs(device).run)), train(IN_TORCH))


def test_who_serves_what(monkeypatch: pytest.MonkeyPatch) -> None:
    single, double, short = torch.zeros(1), torch.zeros(1).double(), torch.zeros(1, dtype=torch.int16)
    assert loops(single) is compiled
    assert loops(single, double) is loops(single, short) is IN_TORCH
    assert not graphed.usable(single)
    monkeypatch.setenv(SWITCH, "1")
    assert loops(single) is IN_TORCH


@no_gpu
def test_which_loops_run_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1, device="cuda")
    assert loops(x) is loops(x.double()) is FROM_GRAPHS
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        assert loops(x) is IN_TORCH  # part of a larger graph
        x.add_(1)
    monkeypatch.setenv(SWITCH, "1")
    assert loops(x) is IN_TORCH
