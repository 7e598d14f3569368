"""Rows: one frame of a packed streaming Conformer, beside itself in float and ONNX Runtime; one thread.

All sides run the same blocks of the same weights, with a full window of frames before them, and carry their state from
call to call. The floor is reading as many bytes as the weights have.
"""

import statistics
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.row import Row
from benchmarks.streaming import NO_ONNX, ROUNDS, RUN, WARM_UP, reading
from benchmarks.streaming_peers import OPSET, Stream, onnx_stream, quiet
from benchmarks.timing import milliseconds
from qstudy.model.encoders.conformer import ConformerEncoder
from qstudy.model.encoders.conformer_block import BlockState
from qstudy.quant.packed.model import fill_packed, pack_model
from qstudy.quant.policies import build_policy
from qstudy.quant.state import layer_shapes
from qstudy.settings import FeatureSettings

SIZES = ((144, 4), (256, 8))
"""D and number of blocks."""
WIDTHS = {"W8A8": 8, "W4A8": 4}
STACK, FRAMES = 4, 64
FLOAT = "our model in torch, float32"
PEERS = (FLOAT, "onnxruntime float32", "onnxruntime int8", "onnxruntime int8, convolutions in float32")
FRAME_US = STACK * 10.0 * 1e3


def rows() -> Iterable[Row]:
    """Both sizes: every width beside every peer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for size, blocks in SIZES:
            yield from size_rows(size, blocks)
    finally:
        torch.set_num_threads(threads)


def size_rows(size: int, blocks: int) -> Iterable[Row]:
    """Of one size."""
    model = encoder(size, blocks)
    frame = torch.randn(1, 1, STACK * model.normalize.mean.numel())
    sides = {FLOAT: stream(model), **({} if NO_ONNX else onnx_streams(model, frame))}
    weights = {name: matrix_bytes(model, bits) for name, bits in WIDTHS.items()}
    sides |= {name: stream(packed(model, size, blocks, bits)) for name, bits in WIDTHS.items()}
    sides |= {f"floor {name}": reading(count) for name, count in weights.items()}
    times = frame_us(sides, frame)
    for name, count in weights.items():
        for peer in PEERS:
            yield Row(
                what=f"Conformer frame, {name}, D = {size}, {blocks} blocks: {count / 1e6:.2f} MB, "
                f"RTF {times[name] / FRAME_US:.5f}",
                unit="us",
                peer=peer,
                ours=times[name],
                theirs=times.get(peer),
                reference_is="read",
                reference=times[f"floor {name}"],
                skipped="" if peer in times else NO_ONNX,
            )


def encoder(size: int, blocks: int) -> ConformerEncoder:
    """The float model of all sides, as it streams."""
    torch.manual_seed(0)
    return ConformerEncoder(FeatureSettings(), size=size, blocks=blocks, stack=STACK, reduction=1).eval()


def packed(model: ConformerEncoder, size: int, blocks: int, bits: int) -> ConformerEncoder:
    """The same as a packed model that runs."""
    source, loaded = encoder(size, blocks), encoder(size, blocks)
    source.load_state_dict(model.state_dict())
    policy = build_policy({"name": "native_int", "layers": {"*": {"weight": bits, "activation": 8}}})
    policy.prepare(source.train())
    features, lengths = torch.randn(2, 40 * STACK, len(model.normalize.mean)), torch.full((2,), 40 * STACK)
    with torch.no_grad():
        policy.calibrate(source, (source(features, lengths) for _ in range(1)))
    policy.project_(source.eval(), 0)
    shapes = layer_shapes(source)
    fill_packed(loaded, pack_model(source, policy.bit_map(shapes), shapes, {}))
    return loaded.eval()


def stream(model: ConformerEncoder) -> Stream:
    """Projection and blocks, carrying their state."""
    state: Any = None
    lengths = torch.tensor([1])

    def step(x: Tensor) -> Tensor:
        nonlocal state
        y, state = model.blocks(model.input(x), lengths, state)
        return y

    return step


class Step(nn.Module):
    """One frame of the blocks with their states as plain tensors, for export."""

    def __init__(self, model: ConformerEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """x (1, 1, stacked bins), keys, values and convolution inputs of every block: the frame and the new states."""
        triples = zip(*(states[part::3] for part in range(3)), strict=True)
        blocks = [BlockState((keys, values), inputs) for keys, values, inputs in triples]
        y, after = self.model.blocks(self.model.input(x), torch.tensor([1]), blocks)
        return (y, *(tensor for state in after for tensor in (*state.attention, state.inputs)))


def onnx_streams(model: ConformerEncoder, frame: Tensor) -> dict[str, Stream]:
    """ONNX Runtime in float32, in dynamic int8, and in that but for the convolutions, which gain nothing by it."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with torch.inference_mode():
        _, states = model.blocks(model.input(torch.randn(1, FRAMES, frame.shape[2])), torch.tensor([FRAMES]))
    flat = [tensor for state in states for tensor in (*state.attention, state.inputs)]
    names = [f"state{index}" for index in range(len(flat))]
    with TemporaryDirectory() as folder, warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")  # of tracing: all shapes are fixed here
        files = ("float.onnx", "inferred.onnx", "int8.onnx", "matrices.onnx")
        graph, inferred, quantized, matrices = (Path(folder, name) for name in files)
        torch.onnx.export(
            Step(model),
            (frame, *flat),
            str(graph),
            input_names=["x", *names],
            output_names=["y", *(f"{name}.out" for name in names)],
            opset_version=OPSET,
            dynamo=False,
        )
        quant_pre_process(str(graph), str(inferred), skip_symbolic_shape=True)  # it stumbles over Reshape
        quantize_dynamic(inferred, quantized, weight_type=QuantType.QInt8)
        require_integers(quantized, "MatMul", "Gemm", "Conv")
        quantize_dynamic(inferred, matrices, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
        require_integers(matrices, "MatMul", "Gemm")
        start = {name: tensor.numpy() for name, tensor in zip(names, flat, strict=True)}
        return {
            name: onnx_stream(path, start)
            for name, path in zip(PEERS[1:], (inferred, quantized, matrices), strict=True)
        }


def require_integers(path: Path, *operators: str) -> None:
    """Raise if the quantizer, which says nothing of it, left products of these kinds with weights in float."""
    import onnx

    nodes = onnx.load(path).graph
    weights = {each.name for each in nodes.initializer}
    left = [node.name for node in nodes.node if node.op_type in operators and weights & {*node.input}]
    if left:
        raise RuntimeError(f"onnxruntime left products in float: {left}")


@torch.inference_mode()
def frame_us(sides: Mapping[str, Stream], frame: Tensor) -> dict[str, float]:
    """Let every side stream in turn, after its window is full; the median microseconds of a frame."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        for _ in range(FRAMES):
            side(frame)
    for _ in range(ROUNDS):
        for name, side in sides.items():
            each = [milliseconds(lambda side=side: side(frame)) for _ in range(RUN)]  # type: ignore[misc]
            times[name] += each[WARM_UP:]
    return {name: statistics.median(each) * 1e3 for name, each in times.items()}


def matrix_bytes(model: ConformerEncoder, bits: int) -> int:
    """Bytes of the matrices."""
    return sum(rows * columns for layer in layer_shapes(model) for rows, columns in layer.matrices) * bits // 8
