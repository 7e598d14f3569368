"""Loops over frames from CUDA graphs: some ten small kernels per frame are launched by one call per chunk of frames.

A graph is bound to its memory, so a loop runs in buffers of its kind, a chunk of frames after the other: what the
chunk reads is copied in, the graph replayed, what it wrote copied out; the state stays where it is. An utterance is
cut into chunks of `CHUNK` frames and the rest into powers of two: no frame is computed in vain, in either direction,
and a few graphs serve every length. Nothing of a call is baked into a graph but the settings and shapes that it is
kept under, and torch's own switches (TF32), which nobody turns while training.

Loops of one device must come from one stream, as they do in training: they share buffers. If a graph cannot be
captured, QSTUDY_PORTABLE=1 does without.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from functools import cache
from itertools import accumulate
from threading import Lock
from typing import Any, Protocol

import torch
from torch import Tensor

from qstudy.quant.kernels import switched_off
from qstudy.quant.recurrence.loop import Loop, Tensors

CHUNK = 32  # frames: a graph's launch and a chunk's copies are then a small part of it
SHORT = 4  # frames below which copying costs more than launching
WARM_UP = 2  # runs of a chunk before it is captured: rare sizes never are
KINDS = 32  # of loops that have buffers; a batch size, twice (forward and backward) for each layer size, is a kind


def usable(*tensors: Tensor) -> bool:
    """Whether loops over these tensors can run from graphs: on a GPU, not switched off, not part of a larger graph."""
    on_gpu = all(tensor.device.type == "cuda" for tensor in tensors)
    return on_gpu and not switched_off() and not torch.cuda.is_current_stream_capturing()


class Replayable(Protocol):
    """One function, run as often as wanted."""

    def warm_up(self, function: Callable[[], None]) -> None:
        """Run it as it is."""

    def capture(self, function: Callable[[], None]) -> None:
        """Note what it does, without doing it."""

    def replay(self) -> None:
        """Do what was noted."""


class Graph:
    """A CUDA graph, captured on the stream on which it was warmed up, as torch's documentation wants it."""

    def __init__(self, device: torch.device) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self._stream, self._pool = _side(device)

    def warm_up(self, function: Callable[[], None]) -> None:
        """Run it on the side, after what is underway and before what follows."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            function()
        current.wait_stream(self._stream)

    def capture(self, function: Callable[[], None]) -> None:
        """Other threads (loaders that pin memory, NCCL's watchdog) may go on meanwhile.

        cuBLAS's workspace is a part of what is captured. torch keeps one from the warm-up, and frees it when it is
        asked to (Lightning asks at the end of every training), so that the graph would write into memory of others:
        without it, the capture takes one from the graphs' own pool, which lives as long as they do.
        """
        torch._C._cuda_clearCublasWorkspaces()
        with torch.cuda.graph(self._graph, self._pool, self._stream, capture_error_mode="thread_local"):
            function()

    def replay(self) -> None:
        """On the current stream."""
        self._graph.replay()


@cache
def _side(device: torch.device) -> tuple[torch.cuda.Stream, Any]:
    """The stream and the memory pool of all graphs of a device: they never run at once, nor leave anything there."""
    return torch.cuda.Stream(device), torch.cuda.graph_pool_handle()


class Graphs:
    """Runs loops from graphs, and keeps those of the kinds that were used last."""

    def __init__(self, graph: Callable[[torch.device], Replayable] = Graph, kinds: int = KINDS) -> None:
        self._graph, self._kinds = graph, kinds
        self._buffers: OrderedDict[Hashable, _Buffers] = OrderedDict()
        self._lock = Lock()  # backward passes run in threads of their own, one for each device

    def run(self, loop: Loop) -> None:
        """Run a loop, with the same results as `Loop.run`."""
        if len(loop) < SHORT:
            loop.run()
            return
        with self._lock:
            self._of_kind(loop).run(loop)

    def _of_kind(self, loop: Loop) -> "_Buffers":
        kind = kind_of(loop)
        if kind not in self._buffers:
            if len(self._buffers) == self._kinds:
                self._buffers.popitem(last=False)
            self._buffers[kind] = _Buffers(loop, self._graph)
        self._buffers.move_to_end(kind)
        return self._buffers[kind]


def kind_of(loop: Loop) -> Hashable:
    """All that two loops must have in common to run in the same buffers: everything but values and the length."""
    whole = tuple((each.shape, each.dtype) for each in loop.fixed + loop.carried)
    by_frame = tuple(
        tuple((each.shape[1:], each.dtype) for each in role) for role in (loop.read, loop.changed, loop.written)
    )
    return loop.frames, loop.settings, whole, by_frame, loop.changed[0].device


def pieces(frames: int) -> list[slice]:
    """Consecutive frames: chunks, then what is left in powers of two, the largest first."""
    powers = (size for size in (1 << bit for bit in reversed(range(CHUNK.bit_length() - 1))) if frames & size)
    sizes = [CHUNK] * (frames // CHUNK) + list(powers)
    return [slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]


class _Buffers:
    """Memory for a chunk of one kind of loop, and the graphs that work there, one for each length."""

    def __init__(self, loop: Loop, graph: Callable[[torch.device], Replayable]) -> None:
        self._loop, self._graph = twin(loop, CHUNK), graph
        self._pieces: dict[int, _Piece] = {}

    def run(self, loop: Loop) -> None:
        """Run a loop of any length."""
        _copy(self._loop.fixed + self._loop.carried, loop.fixed + loop.carried)
        places = pieces(len(loop))
        for place in reversed(places) if loop.backward else places:
            part = loop.part(place)
            piece = self._piece(len(part))
            _copy(piece.loop.loaded, part.loaded)
            piece.run()
            _copy(part.stored, piece.loop.stored)
        _copy(loop.carried, self._loop.carried)

    def _piece(self, frames: int) -> "_Piece":
        if frames not in self._pieces:
            part = self._loop.part(slice(frames))
            self._pieces[frames] = _Piece(part, self._graph(part.changed[0].device))
        return self._pieces[frames]


class _Piece:
    """The first frames of the buffers, and their graph."""

    def __init__(self, loop: Loop, graph: Replayable) -> None:
        self.loop, self._graph = loop, graph
        self._runs = 0

    def run(self) -> None:
        """By launching every kernel, until the piece has proved not to be rare."""
        self._runs += 1
        if self._runs <= WARM_UP:
            self._graph.warm_up(self.loop.run)
            return
        if self._runs == WARM_UP + 1:
            self._graph.capture(self.loop.run)
        self._graph.replay()


def twin(loop: Loop, frames: int) -> Loop:
    """The same loop over so many frames, in memory of its own that any later call may write, all on one device.

    A number that lies on the host would be read when a graph is captured, and never again.
    """
    device = loop.changed[0].device

    def room(tensors: Tensors, *leading: int) -> Tensors:
        shapes = [(*leading, *each.shape[len(leading) :]) for each in tensors]
        return tuple(
            torch.zeros(shape, dtype=each.dtype, device=device) for shape, each in zip(shapes, tensors, strict=True)
        )

    with torch.inference_mode(False):
        return replace(
            loop,
            fixed=room(loop.fixed),
            carried=room(loop.carried),
            read=room(loop.read, frames),
            changed=room(loop.changed, frames),
            written=room(loop.written, frames),
        )


def _copy(targets: Iterable[Tensor], sources: Iterable[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
