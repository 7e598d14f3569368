"""Rows: one frame of a packed recognizer's encoder, as it streams, beside torch and ONNX Runtime; one thread.

The floor is reading as many bytes as the weights have, in turn with everything else.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from benchmarks.row import Row
from benchmarks.streaming_peers import PEERS, Plain, Stream, streams
from benchmarks.timing import milliseconds, refusal
from qstudy.data.features import Filterbank
from qstudy.jit import compiled
from qstudy.model import RNNT, ModelConfig
from qstudy.quant.packed.model import fill_packed, pack_model
from qstudy.quant.policies import build_policy
from qstudy.recognize.live import LiveProgram, LiveStream
from qstudy.settings import FeatureSettings

WIDTHS = {
    "W8A8": ("native_int", 8),
    "W4A8": ("native_int", 4),
    "W3A8": ("native_int", 3),
    "W2A8": ("native_int", 2),
    "4-bit codebook, A8": ("s8bqat", 4),
    "3-bit codebook, A8": ("s8bqat", 3),
    "2-bit codebook, A8": ("s8bqat", 2),
}
HIDDEN = (256, 640)
CALLS = {1: tuple(WIDTHS), 3: ("W8A8", "W4A8")}
"""Frames per call -> which widths. The recognizer's encoder takes as many at a time as it joins (`reduction`: 3)."""
LAYERS, BINS, STACK, HOP_MS, JOINER, LABELS = 3, 40, 4, 10.0, 128, 29
FRAME_US = STACK * HOP_MS * 1e3
RUN = 20  # calls of one side before the next has its turn
WARM_UP = 5  # of them do not count: the weights come back into the caches
ROUNDS = 25
NO_ONNX = "" if find_spec("onnxruntime") and find_spec("onnx") else "not installed: pip install 'qstudy[bench]'"


def rows() -> Iterable[Row]:
    """Both sizes: int8 beside every peer, then the other widths beside the fastest."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for hidden in HIDDEN:
            yield from size_rows(hidden)
    finally:
        torch.set_num_threads(threads)


def size_rows(hidden: int) -> Iterable[Row]:
    """Of one hidden size."""
    model = recognizer(hidden)
    ours = {name: packed(hidden, *width) for name, width in WIDTHS.items()}
    weights = {name: matrix_bytes(model, bits) for name, (_, bits) in WIDTHS.items()}
    frame = torch.zeros(1, 1, STACK * BINS)
    peers = streams(plain(model))
    why_not = dict.fromkeys(PEERS, NO_ONNX) | {name: refusal(lambda p=peer: p(frame)) for name, peer in peers.items()}
    sides: dict[str, Stream] = {name: peer for name, peer in peers.items() if not why_not[name]}
    sides |= {name: stream(each) for name, each in ours.items()}
    sides |= {f"floor {name}": reading(size) for name, size in weights.items()}
    for frames, names in CALLS.items():
        times = frame_us(sides, frames)
        yield from call_rows(hidden, frames, times, {name: weights[name] for name in names}, why_not)


def call_rows(
    hidden: int, frames: int, times: Mapping[str, float], weights: Mapping[str, int], why_not: Mapping[str, str]
) -> Iterable[Row]:
    """Of one hidden size and so many frames per call."""
    peers = {name: times.get(name) for name in PEERS}
    fastest = min((name for name, time in peers.items() if time), key=lambda name: peers[name] or 0)
    calls = "" if frames == 1 else f", {frames} per call"
    for name, size in weights.items():
        for peer in PEERS if name == "W8A8" else [fastest]:
            yield Row(
                what=f"frame, {name}, H = {hidden}{calls}: {size / 1e6:.2f} MB, RTF {times[name] / FRAME_US:.5f}",
                unit="us",
                peer=peer,
                ours=times[name],
                theirs=peers[peer],
                reference_is="read",
                reference=times[f"floor {name}"],
                skipped=why_not[peer],
            )


@torch.inference_mode()
def frame_us(sides: Mapping[str, Stream], frames: int) -> dict[str, float]:
    """Let every side stream, some frames per call, in turn; the median microseconds of a frame."""
    torch.manual_seed(0)
    calls = torch.randn(RUN, 1, frames, STACK * BINS)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            each = [milliseconds(lambda side=side, x=x: side(x)) for x in calls]  # type: ignore[misc]
            times[name] += each[WARM_UP:]
    return {name: statistics.median(each) * 1e3 / frames for name, each in times.items()}


def recognizer(hidden: int) -> RNNT:
    """The model of all sides: three LSTM layers over four stacked frames, and the joiner's projection."""
    torch.manual_seed(0)
    encoder = {"name": "lstm", "hidden": hidden, "layers": LAYERS, "stack": STACK, "reduction": 1}
    return RNNT(ModelConfig(encoder, joiner={"hidden": JOINER}), FeatureSettings(bins=BINS), LABELS)


def packed(hidden: int, policy: str, bits: int) -> RNNT:
    """The recognizer as a packed model that runs."""
    model, loaded = recognizer(hidden).train(), recognizer(hidden)
    filler = build_policy({"name": policy, "layers": {"*": {"weight": bits, "activation": 8}}})
    filler.prepare(model)
    features, lengths = torch.randn(2, 40 * STACK, BINS), torch.full((2,), 40 * STACK)
    with torch.no_grad():
        passes = (model(features, lengths, torch.ones(2, 3, dtype=torch.int64)) for _ in range(1))
        filler.calibrate(model, passes)
    filler.project_(model, 0)
    fill_packed(loaded, pack_model(model.eval(), filler.bit_map(model.shapes()), model.shapes(), {}))
    return loaded.eval()


def stream(loaded: RNNT) -> Stream:
    """Encoder layers and projection of a packed recognizer, carrying their state."""
    program = LiveProgram(loaded, Filterbank(FeatureSettings(bins=BINS)))
    return LiveStream(program, max(CALLS)).encode


def plain(model: RNNT) -> Plain:
    """The same float weights without us."""
    copy = Plain(STACK * BINS, model.encoder.output_size, LAYERS, JOINER)
    for index, layer in enumerate(model.encoder.lstm):
        for name, value in layer.named_parameters():
            getattr(copy.lstm, name.replace("l0", f"l{index}")).data.copy_(value)
    copy.projection.load_state_dict(model.joiner.encoder.state_dict())
    return copy.eval()


def matrix_bytes(model: RNNT, bits: int) -> int:
    """Bytes of the matrices that a frame runs through."""
    layers = [shape for shape in model.shapes() if shape.name.startswith(("encoder.lstm", "joiner.encoder"))]
    return sum(rows * columns for layer in layers for rows, columns in layer.matrices) * bits // 8


def reading(size: int) -> Callable[[Tensor], object]:
    """Read so many bytes, as fast as one core can."""
    words = np.ones(size // 8, np.int64)
    return lambda x: add(words)


@compiled()
def add(words):  # type: ignore[no-untyped-def]
    """The sum of (n,) int64."""
    total = np.int64(0)
    for place in range(words.size):
        total += words[place]
    return total
