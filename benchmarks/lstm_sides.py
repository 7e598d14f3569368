"""One LSTM layer, forward and backward, by us and by each peer."""

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from qstudy.quant import bfloat16
from qstudy.quant.kernels import SWITCH
from qstudy.quant.layers import LSTM
from qstudy.quant.policies import build_policy

BF16_GRADIENTS = "native W8A8, bf16 gradients"
IN_FLOAT32 = "" if bfloat16.multiplies("cpu") else " (in float32: this processor would emulate bfloat16)"
"""Of the gradients that are to be in bfloat16."""
NO_BF16 = "" if bfloat16.multiplies("cpu") else "this processor would emulate it"
W8, W8A8 = {"weight": 8}, {"weight": 8, "activation": 8}
NATIVE = {"name": "native_int", "layers": {"*": W8A8}}
POLICIES: dict[str, dict[str, Any]] = {
    "fake W8": {"name": "fake_qat", "layers": {"*": W8}},
    "fake W8A8": {"name": "fake_qat", "layers": {"*": W8A8}},
    "native W8A8": NATIVE,
    BF16_GRADIENTS: NATIVE | {"gradient": "bfloat16"},
    "native W8A8, torch only": NATIVE,
}
"""Ours, by the name of their row."""
PORTABLE = {"native W8A8, torch only"}
AS_BREVITAS = {"weight_range": "max", "activation_range": "learned"}
"""The ranges that Brevitas has by default, for `fake_qat` beside it."""
NO_BREVITAS = "" if find_spec("brevitas") else "not installed: pip install 'qstudy[bench]'"
Step = Callable[[], None]


@contextmanager
def portable(wanted: bool) -> Iterator[None]:
    """Without our kernels, as on a GPU."""
    before = dict(os.environ)
    os.environ[SWITCH] = str(int(wanted))
    try:
        yield
    finally:
        os.environ.pop(SWITCH)
        os.environ.update(before)


def quantized(model: nn.Module, policy: Mapping[str, Any], forward: Callable[[nn.Module], object]) -> nn.Module:
    """A copy of `model` under a policy, calibrated by one pass, in training mode."""
    model = copy.deepcopy(model).train()
    built = build_policy(dict(policy))
    built.prepare(model)
    with torch.no_grad():
        built.calibrate(model, (forward(model) for _ in range(1)))
    built.project_(model, 0)
    return model


def layer_step(layer: nn.Module, x: Tensor, without_kernels: bool = False, autocast: bool = False) -> None:
    """Forward and backward of a recurrent layer, gradients of x (B, T, D) too."""
    layer.zero_grad(set_to_none=True)
    x.grad = None
    with portable(without_kernels):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = layer(x)[0]
        y.float().square().mean().backward()


def quick_sides(batch: int, frames: int, size: int) -> dict[str, Step]:
    """Ours, and `nn.LSTM` in float32 (`float`) and under bf16 autocast (`nn.LSTM bf16`).

    `fake_qat` has the ranges of its peer.
    """
    torch.manual_seed(0)
    x = torch.randn(batch, frames, size, requires_grad=True)
    layer = LSTM(size, size)
    sides: dict[str, Step] = {"float": partial(layer_step, layer, x)}
    if not NO_BF16:
        sides["nn.LSTM bf16"] = partial(layer_step, layer, x, autocast=True)
    for name, policy in POLICIES.items():
        ranges = AS_BREVITAS if policy["name"] == "fake_qat" else {}
        model = quantized(nn.Sequential(layer), policy | ranges, lambda model: model(x))[0]
        sides[name] = partial(layer_step, model, x, without_kernels=name in PORTABLE)
    return sides


def slow_sides(batch: int, frames: int, size: int) -> dict[str, Step]:
    """Peers whose time loop is written in Python."""
    x = torch.randn(batch, frames, size, requires_grad=True)
    sides = {"torch.ao": partial(layer_step, torch_ao(size), x)}
    if not NO_BREVITAS:
        sides |= {f"Brevitas {name}": partial(layer_step, brevitas(size, name), x) for name in ("W8", "W8A8")}
    return sides


def brevitas(size: int, widths: str) -> nn.Module:
    """Brevitas with the same tensors quantized as ours: weights per row, inputs and hidden state; nothing else.

    Its quantizers are compiled, which saves it a seventh; it asks for that once, when it is imported.
    """
    os.environ.setdefault("BREVITAS_JIT", "1")
    from brevitas.nn import QuantLSTM
    from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat

    nothing = dict.fromkeys(("bias_quant", "gate_acc_quant", "sigmoid_quant", "tanh_quant", "cell_state_quant"))
    activations = {"W8": {"io_quant": None}, "W8A8": {"io_quant": Int8ActPerTensorFloat, "io_collect_stats_steps": 1}}
    return QuantLSTM(
        size, size, batch_first=True, weight_quant=Int8WeightPerChannelFloat, **nothing, **activations[widths]
    )


def torch_ao(size: int) -> nn.Module:
    """torch's own quantizable LSTM, fake-quantized for training as its defaults have it."""
    import torch.ao.nn.quantizable
    import torch.ao.quantization

    layer = nn.LSTM(size, size, batch_first=True)
    layer.qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")
    return torch.ao.nn.quantizable.LSTM.from_float(layer)  # which prepares it: once more would quantize twice
