"""Rows: one quantization-aware step of an LSTM layer, and of the whole recognizer, beside the same in float32."""

import copy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.lstm_sides import (
    BF16_GRADIENTS,
    IN_FLOAT32,
    NO_BF16,
    NO_BREVITAS,
    POLICIES,
    PORTABLE,
    Step,
    portable,
    quantized,
    quick_sides,
    slow_sides,
)
from benchmarks.row import Row
from benchmarks.timing import interleaved
from qstudy.model import RNNT, ModelConfig
from qstudy.settings import FeatureSettings
from qstudy.training.module import joiner_loss
from qstudy.yaml_file import load_yaml

MODEL = Path(__file__).parents[1] / "sweeps" / "base" / "digits.yaml"
BINS, HOP_MS, LABELS = 40, 10.0, 29
BATCHES, SIZE = (16, 32), 256
SECONDS, LETTERS = 3, 25  # of an utterance
FRAMES = SECONDS * 25  # of an LSTM layer: it sees four feature frames at once
ROUNDS = 15
SLOW_ROUNDS = 5
"""With a peer whose time loop is written in Python."""
PEERS = {
    "fake W8": "Brevitas W8",
    "fake W8A8": "Brevitas W8A8",
    "native W8A8": "torch.ao",
    BF16_GRADIENTS: "nn.LSTM bf16",
    "native W8A8, torch only": "nn.LSTM bf16",
}
"""Who stands beside which of ours."""
WHY_NOT = {"Brevitas W8": NO_BREVITAS, "Brevitas W8A8": NO_BREVITAS, "nn.LSTM bf16": NO_BF16}
"""Why a peer is not there."""


def rows() -> Iterable[Row]:
    """The layer beside its peers, then the whole step beside the same step in float."""
    for batch in BATCHES:
        yield from layer_rows(batch)
    for batch in BATCHES:
        yield from recognizer_rows(batch)


def layer_rows(batch: int) -> Iterable[Row]:
    """An LSTM layer, forward and backward."""
    shape = (batch, FRAMES, SIZE)
    quick, slow = quick_sides(*shape), slow_sides(*shape)
    for name, peer in PEERS.items():
        times = interleaved(turns(name, peer, quick | slow), SLOW_ROUNDS if peer in slow else ROUNDS)
        yield Row(
            what=f"LSTM step, {name}{remark(name)}, {batch} x {FRAMES} x {SIZE}",
            unit="ms",
            peer=peer,
            ours=times[name],
            theirs=times.get(peer),
            reference_is="nn.LSTM",
            reference=times["float"],
            skipped=WHY_NOT.get(peer, "") if peer not in times else "",
        )


def turns(name: str, peer: str, sides: Mapping[str, Step]) -> dict[str, Step]:
    """Whose times a row holds: they take turns, without the others; the peer may not be there."""
    return {each: sides[each] for each in (name, peer, "float") if each in sides}


def recognizer_rows(batch: int) -> Iterable[Row]:
    """The recognizer of the digits studies: forward, RNN-T loss, backward, optimizer; ours as training runs.

    Under bf16 autocast, that is, where the processor multiplies bfloat16 itself.
    """
    torch.manual_seed(0)
    config = ModelConfig(**load_yaml(MODEL)["model"])
    model = RNNT(config, FeatureSettings(bins=BINS), LABELS)
    examples = problem(batch)
    steps: dict[str, Callable[[], object]] = {
        "float32": training_step(copy.deepcopy(model), *examples, autocast=False),
    }
    if not NO_BF16:
        steps["float bf16"] = training_step(copy.deepcopy(model), *examples)
    for name, policy in POLICIES.items():
        ours = quantized(model, policy, lambda model: model(*examples[:3]))
        steps[name] = training_step(ours, *examples, autocast=not IN_FLOAT32, without_kernels=name in PORTABLE)
    times = interleaved(steps, ROUNDS)
    for name in POLICIES:
        yield Row(
            what=f"training step, {name}{remark(name)}, {batch} x {SECONDS} s",
            unit="ms",
            peer="float bf16",
            ours=times[name],
            theirs=times.get("float bf16"),
            reference_is="float32",
            reference=times["float32"],
            skipped=NO_BF16,
        )


def remark(name: str) -> str:
    """What must be said of a row on this processor."""
    return IN_FLOAT32 if name == BF16_GRADIENTS else ""


def problem(batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features (B, F, D), their lengths (B,), labels (B, U) and their lengths (B,), all of full length."""
    frames = round(SECONDS * 1000 / HOP_MS)
    return (
        torch.randn(batch, frames, BINS),
        torch.full((batch,), frames),
        torch.randint(1, LABELS, (batch, LETTERS)),
        torch.full((batch,), LETTERS),
    )


def training_step(
    model: RNNT,
    features: Tensor,
    lengths: Tensor,
    targets: Tensor,
    target_lengths: Tensor,
    autocast: bool = True,
    without_kernels: bool = False,
) -> Callable[[], None]:
    """A function that does one training step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with portable(without_kernels):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                encoded, frames, _ = model.encoder(features, lengths)
                loss = joiner_loss(model.joiner, encoded, model.predictor(targets), targets, frames, target_lengths)
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()

    return step
