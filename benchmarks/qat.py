"""Rows: one quantization-aware step of an LSTM layer, and of the whole recognizer; the floor is the float step."""

import copy
from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from benchmarks.row import Row
from benchmarks.timing import interleaved
from qstudy.loss import rnnt_loss
from qstudy.model.rnnt import RNNT, ModelConfig
from qstudy.quant.layers import LSTM
from qstudy.quant.policies import build_policy

WIDTHS = {"W4": {"weight": 4}, "W4A8": {"weight": 4, "activation": 8}}
BATCH, FRAMES, HIDDEN = 32, 200, 256
BINS, HOP_MS, LABELS = 40, 10.0, 29
SECONDS, LETTERS = 3, 25  # an utterance of the whole-recognizer rows
ROUNDS = 9
BREVITAS_ROUNDS = 3  # its time loop is written in Python
NO_BREVITAS = "" if find_spec("brevitas") else "not installed: pip install 'qstudy[bench]'"


def rows() -> Iterable[Row]:
    """The layer beside Brevitas, then the whole step beside the same step in float."""
    yield from layer_rows()
    yield from recognizer_rows()


def layer_rows() -> Iterable[Row]:
    """An LSTM layer, forward and backward."""
    torch.manual_seed(0)
    x = torch.randn(BATCH, FRAMES, HIDDEN)
    model = nn.Sequential(LSTM(HIDDEN, HIDDEN))
    steps: dict[str, Callable[[], object]] = {"float": partial(layer_step, model, x)}
    for name, widths in WIDTHS.items():
        steps[name] = partial(layer_step, quantized(model, widths, lambda model: model(x)), x)
    times = interleaved(steps, ROUNDS)
    brevitas = {} if NO_BREVITAS else brevitas_times(x)
    for name in WIDTHS:
        yield Row(
            what=f"LSTM step, {name}, {BATCH} x {FRAMES} x {HIDDEN}",
            unit="ms",
            peer="Brevitas",
            ours=times[name],
            theirs=brevitas.get(name),
            floor_is="nn.LSTM",
            floor=times["float"],
            skipped=NO_BREVITAS,
        )


def recognizer_rows() -> Iterable[Row]:
    """The default recognizer: forward, RNN-T loss, backward, optimizer; bf16 autocast, as training does it."""
    torch.manual_seed(0)
    model = RNNT(ModelConfig(), BINS, HOP_MS, LABELS)
    frames = round(SECONDS * 1000 / HOP_MS)
    batch = (
        torch.randn(BATCH, frames, BINS),
        torch.full((BATCH,), frames),
        torch.randint(1, LABELS, (BATCH, LETTERS)),
        torch.full((BATCH,), LETTERS),
    )
    steps: dict[str, Callable[[], object]] = {"float": training_step(copy.deepcopy(model), *batch)}
    for name, widths in WIDTHS.items():
        steps[name] = training_step(quantized(model, widths, lambda model: model(*batch[:3])), *batch)
    times = interleaved(steps, ROUNDS)
    for name in WIDTHS:
        yield Row(
            what=f"training step, {name}, {BATCH} x {SECONDS} s",
            unit="ms",
            peer="float",
            ours=times[name],
            theirs=times["float"],
            floor_is="float",
            floor=times["float"],
        )


def quantized(model: nn.Module, widths: dict[str, int], forward: Callable[[nn.Module], object]) -> nn.Module:
    """A copy of `model` under the policy `fake_qat`, calibrated by one pass, in training mode."""
    model = copy.deepcopy(model).train()
    policy = build_policy({"name": "fake_qat", "layers": {"*": widths}})
    policy.prepare(model)
    with torch.no_grad():
        policy.calibrate(model, (None for _ in [forward(model)]))
    policy.project_(model, 0)
    return model


def layer_step(layer: nn.Module, x: Tensor) -> None:
    """Forward and backward of a recurrent layer."""
    layer.zero_grad(set_to_none=True)
    layer(x)[0].square().mean().backward()


def training_step(
    model: nn.Module, features: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor
) -> Callable[[], None]:
    """A function that does one training step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            logits, frames, _ = model(features, lengths, targets)
        rnnt_loss(logits.float(), targets, frames, target_lengths, blank=0).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()

    return step


def brevitas_times(x: Tensor) -> dict[str, float]:
    """Brevitas with the same tensors quantized as ours: weights per row, inputs and hidden state; nothing else."""
    from brevitas.nn import QuantLSTM
    from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat

    weights = {"weight_quant": Int8WeightPerChannelFloat, "weight_bit_width": 4}
    nothing = dict.fromkeys(("bias_quant", "gate_acc_quant", "sigmoid_quant", "tanh_quant", "cell_state_quant"))
    activations = {"W4": {"io_quant": None}, "W4A8": {"io_quant": Int8ActPerTensorFloat, "io_collect_stats_steps": 1}}
    steps = {
        name: partial(layer_step, QuantLSTM(HIDDEN, HIDDEN, batch_first=True, **weights, **nothing, **options), x)
        for name, options in activations.items()
    }
    return interleaved(steps, BREVITAS_ROUNDS)
