"""Peers of the benchmarks do the job that they are timed at, and no more than it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import conformer
from benchmarks.lstm_sides import layer_step, torch_ao
from benchmarks.streaming_peers import Plain, onnx_graph, onnx_stream, quantize_onnx, streams

CALLS = (1, 3, 1, 1, 3)
"""Frames of each."""


@pytest.fixture
def plain() -> Plain:
    pytest.importorskip("onnx")
    torch.manual_seed(0)
    return Plain(12, 16, 2, 5).eval()


@torch.inference_mode()
def test_onnx_carries_the_states_as_torch_does(plain: Plain) -> None:
    sides = streams(plain)
    for frames in CALLS:
        x = torch.randn(1, frames, 12)
        expected, found = (sides[name](x) for name in ("torch float32", "onnxruntime float32"))
        np.testing.assert_allclose(found, expected[0], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_onnx_in_buffers_of_its_own_is_onnx_with_new_arrays(plain: Plain, tmp_path: Path) -> None:
    import onnxruntime

    graph, quantized = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    graph.write_bytes(onnx_graph(plain).SerializeToString())
    quantize_onnx(graph, quantized)
    state = {name: np.zeros((1, 1, 16), np.float32) for name in ("h0", "c0", "h1", "c1")}
    bound = onnx_stream(quantized, state)
    session = onnxruntime.InferenceSession(str(quantized), providers=["CPUExecutionProvider"])
    for frames in CALLS:
        x = torch.randn(1, frames, 12)
        expected, *after = session.run(["y", *(f"{name}.out" for name in state)], {"x": x.numpy()[0][:, None], **state})
        state = dict(zip(state, after, strict=True))
        np.testing.assert_array_equal(bound(x), expected)


@torch.inference_mode()
def test_onnx_streams_a_conformer_as_torch_does() -> None:
    pytest.importorskip("onnx")
    model = conformer.encoder(32, 1)
    x = torch.randn(conformer.FRAMES, 1, 1, conformer.STACK * model.normalize.mean.numel())
    ours, theirs = conformer.stream(model), conformer.onnx_streams(model, x[0])["onnxruntime float32"]
    for frame in x:
        expected, found = ours(frame), theirs(frame)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)  # once what each started from is forgotten


def test_torch_ao_quantizes_once_and_trains() -> None:
    layer = torch_ao(8)
    assert {len(each._forward_hooks) for each in layer.modules()} == {0, 1}
    calls: list[str] = []
    for name, each in layer.named_modules():
        if name.endswith("activation_post_process"):
            each.register_forward_hook(lambda *_, name=name: calls.append(name))
    layer_step(layer, torch.randn(2, 1, 8, requires_grad=True))
    assert len(calls) == len(set(calls)) > 0  # of one frame
    assert all(each.grad is not None for each in layer.parameters())
