"""The peers of packed streaming: the same LSTM layers and projection in torch and in ONNX Runtime, float and int8.

Each peer is a stream: a function that takes frames (1, T, D) float32 and carries its state from call to call;
call it in inference mode.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Stream = Callable[[Tensor], object]

PEERS = ("torch float32", "torch.ao int8", "onnxruntime float32", "onnxruntime int8")
OPSET = 17


class Plain(nn.Module):
    """Layers of `nn.LSTM` and a projection, as one would write them without us."""

    def __init__(self, inputs: int, hidden: int, layers: int, outputs: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=True)
        self.projection = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (B, T, D) to (B, T, outputs) and the state after the last frame."""
        y, after = self.lstm(x, state)
        return self.projection(y), after


def streams(model: Plain) -> dict[str, Stream]:
    """Every peer that is installed, by name."""
    found = {"torch float32": torch_stream(model), "torch.ao int8": lazily(lambda: torch_stream(dynamic_int8(model)))}
    if find_spec("onnxruntime") and find_spec("onnx"):
        with TemporaryDirectory() as folder:
            graph, quantized = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
            graph.write_bytes(onnx_graph(model).SerializeToString())
            quantize_onnx(graph, quantized)
            zero = np.zeros((1, 1, model.lstm.hidden_size), np.float32)
            start = {f"{part}{layer}": zero for layer in range(model.lstm.num_layers) for part in "hc"}
            found["onnxruntime float32"] = onnx_stream(graph, start)
            found["onnxruntime int8"] = onnx_stream(quantized, start)
    return found


def dynamic_int8(model: Plain) -> nn.Module:
    """`torch.ao`: int8 weights, activations quantized at every product."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is to move to torchao one day
        quantized: nn.Module = torch.ao.quantization.quantize_dynamic(model, {nn.LSTM, nn.Linear}, dtype=torch.qint8)
    return quantized


def lazily(make: Callable[[], Stream]) -> Stream:
    """A stream that is made when it is first called: there may be no engine for it on this processor."""
    made = cache(make)
    return lambda x: made()(x)


def torch_stream(model: nn.Module) -> Stream:
    """A module of torch that carries its state."""
    state: Any = None

    def step(x: Tensor) -> Tensor:
        nonlocal state
        y, state = model(x, state)
        return y

    return step


def onnx_graph(model: Plain) -> Any:
    """The model as an ONNX graph of LSTM and Gemm nodes.

    Built by hand: torch's exporter leaves the LSTM's weights unfolded, and then `quantize_dynamic` passes them over.
    """
    from onnx import TensorProto, helper, numpy_helper

    lstm, hidden = model.lstm, model.lstm.hidden_size
    constants: dict[str, NDArray[Any]] = {"axis": np.array([1]), "row": np.array([-1, hidden])}
    constants |= {"p.w": model.projection.weight.detach().numpy(), "p.b": model.projection.bias.detach().numpy()}
    nodes, x, states = [], "x", [(f"h{i}", f"c{i}") for i in range(lstm.num_layers)]
    for i, (h, c) in enumerate(states):
        constants |= {f"{i}.{name}": value for name, value in onnx_weights(lstm, i).items()}
        inputs = [x, f"{i}.w", f"{i}.r", f"{i}.b", "", h, c]
        nodes.append(helper.make_node("LSTM", inputs, [f"{i}.y", f"{h}.out", f"{c}.out"], hidden_size=hidden))
        nodes.append(helper.make_node("Squeeze", [f"{i}.y", "axis"], [f"{i}.x"]))
        x = f"{i}.x"
    nodes.append(helper.make_node("Reshape", [x, "row"], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "p.w", "p.b"], ["y"], transB=1))
    names = [name for pair in states for name in pair]

    def value(name: str, *shape: int | str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "stream",
        [value("x", "T", 1, lstm.input_size), *(value(name, 1, 1, hidden) for name in names)],
        [value("y", "T", model.projection.out_features), *(value(f"{name}.out", 1, 1, hidden) for name in names)],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def onnx_weights(lstm: nn.LSTM, layer: int) -> dict[str, NDArray[Any]]:
    """One layer's weights in ONNX's order of gates: input, output, forget, cell."""

    def gates(name: str) -> NDArray[Any]:
        i, f, g, o = getattr(lstm, f"{name}_l{layer}").detach().chunk(4)
        array: NDArray[Any] = torch.cat([i, o, f, g]).numpy()
        return array

    bias = np.concatenate([gates("bias_ih"), gates("bias_hh")])
    return {"w": gates("weight_ih")[None], "r": gates("weight_hh")[None], "b": bias[None]}


@contextmanager
def quiet() -> Iterator[None]:
    """Within, no library's advice."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def quantize_onnx(graph: Path, quantized: Path) -> None:
    """Dynamic int8; checked, because it says nothing about what it leaves in float."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():  # it asks for a step that changes nothing here
        quantize_dynamic(graph, quantized, weight_type=QuantType.QInt8, per_channel=False)
    kinds = {node.op_type for node in onnx.load(quantized).graph.node}
    if "DynamicQuantizeLSTM" not in kinds or "LSTM" in kinds:
        raise RuntimeError(f"onnxruntime left the LSTM in float: {sorted(kinds)}")


def onnx_stream(path: Path, start: Mapping[str, NDArray[Any]]) -> Stream:
    """An ONNX Runtime session of as many threads as torch has; a call's frames lie in its buffers until the next one.

    Everything is bound beforehand. The states lie in two sets of buffers: read from one and written into the other, in
    turn.

    Args:
        path: a graph of an input `x`, states, an output `y` and the new states, `NAME.out` for every state; T is the
            only dimension that varies.
        start: the states before the first frame, by name, float32.
    """
    import onnxruntime
    from onnxruntime import OrtValue

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    states = [
        {name: OrtValue.ortvalue_from_numpy(np.array(value, order="C")) for name, value in start.items()}
        for _ in range(2)
    ]
    turn = 0

    @cache
    def bound(frames: int) -> tuple[NDArray[Any], NDArray[Any], list[Any]]:
        """Buffers of x (1, T, D) and y, and what is bound in either turn."""
        ends = session.get_inputs()[0], session.get_outputs()[0]
        x, y = (np.zeros([frames if isinstance(n, str) else n for n in end.shape], np.float32) for end in ends)
        bindings = []
        for before, after in (states, states[::-1]):
            bindings.append(binding := session.io_binding())
            binding.bind_ortvalue_input("x", OrtValue.ortvalue_from_numpy(x))
            binding.bind_ortvalue_output("y", OrtValue.ortvalue_from_numpy(y))
            for name in start:
                binding.bind_ortvalue_input(name, before[name])
                binding.bind_ortvalue_output(f"{name}.out", after[name])
        return x.reshape(1, frames, -1), y, bindings

    def step(x: Tensor) -> NDArray[Any]:
        nonlocal turn
        given, y, bindings = bound(x.shape[1])
        np.copyto(given, x.numpy())
        session.run_with_iobinding(bindings[turn])
        turn = 1 - turn
        return y

    return step
