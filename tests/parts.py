"""A small recognizer of any parts, under any policy, and what the packed one must have in common with it."""

from typing import Any

import torch
from tiny import BINS, FEATURES, TOKENIZER, filled, packed, speech
from torch import Tensor

from qstudy.loss.rnnt import rnnt_loss
from qstudy.model import RNNT, ModelConfig
from qstudy.quant.integer.accumulator import recorded_accumulators
from qstudy.quant.layers import quantizable
from qstudy.quant.packed.model import PackedModel, fill_packed

EIGHT: dict[str, Any] = {"weight": 8, "activation": 8}
EXACT: dict[str, dict[str, Any]] = {
    "native_int W4A8": {"name": "native_int", "layers": {"*": {"weight": 4, "activation": 8}}},
    "native_int W16A16": {"name": "native_int", "layers": {"*": {"weight": 16, "activation": 16}}},
    "int4_e2e": {"name": "int4_e2e"},
    "accelerator_aware": {"name": "accelerator_aware", "layers": {"*": EIGHT}},
}
"""Policies under which training and the packed model compute the same integers."""
CLOSE: dict[str, dict[str, Any]] = {
    "weights alone": {"name": "native_int", "layers": {"*": {"weight": 4}}},
    "activations alone": {"name": "fake_qat", "layers": {"*": {"activation": 8}}},
    "fake_qat": {"name": "fake_qat", "layers": {"*": EIGHT}},
    "fake_qat in groups": {
        "name": "fake_qat",
        "layers": {"*": {"weight": 8, "activation": 8, "granularity": "group", "group": 4}},
    },
    "s8bqat": {"name": "s8bqat", "layers": {"*": {"weight": 4, "activation": 8}}},
    "ptq": {"name": "ptq", "layers": {"*": EIGHT}, "rounding": "gptq"},
}
"""Policies under which they differ by rounding."""
Batch = tuple[Tensor, Tensor, Tensor]


def batch(seed: int = 0) -> Batch:
    """Three utterances of different lengths: features, lengths, targets."""
    targets = torch.randint(1, TOKENIZER.size, (3, 5), generator=torch.Generator().manual_seed(seed))
    return speech(seed=seed), torch.tensor([80, 61, 72]), targets


def model_of(config: ModelConfig, seed: int = 1) -> RNNT:
    """A model with random weights, large enough that different labels win."""
    torch.manual_seed(seed)
    model = RNNT(config, FEATURES, TOKENIZER.size)
    model.encoder.normalize.fit(torch.full((BINS,), -8.0), torch.full((BINS,), 3.0))
    with torch.no_grad():
        for layer in quantizable(model).values():
            for matrix in layer.matrices():
                matrix.mul_(3.0)
    return model.eval()


def model_and_packed(config: ModelConfig, policy: dict[str, Any]) -> tuple[RNNT, RNNT, PackedModel]:
    """A calibrated model, the packed one that runs, and its file."""
    model = model_of(config)
    device = packed(model, filled(model, policy), config)
    loaded = model_of(config, seed=2)
    fill_packed(loaded, device)
    return model, loaded.eval(), device


def require_same_integers(model: RNNT, loaded: RNNT, given: Batch) -> int:
    """Every accumulator of the training forward pass, with gradients, is the packed model's, and so are the logits.

    Returns:
        How many layers' calls were compared.
    """
    for module in model.train().modules():
        if hasattr(module, "observer_enabled"):
            module.observer_enabled = False
    with recorded_accumulators() as trained:
        logits = model(*given)[0]
    with recorded_accumulators() as served, torch.no_grad():
        again = loaded(*given)[0]
    assert logits.requires_grad
    assert [each.shape for each in trained] == [each.shape for each in served]
    assert all(torch.equal(first.double(), second.double()) for first, second in zip(trained, served, strict=True))
    assert torch.equal(logits, again)
    return len(trained)


def train(model: RNNT, steps: int, rate: float = 0.01) -> tuple[float, float]:
    """RNN-T loss per utterance of one batch, over and over: at the first and after the last step."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=rate)
    features, lengths, targets = batch()
    losses = []
    for _ in range(steps + 1):
        logits, frames, _ = model(features, lengths, targets)
        loss = rnnt_loss(logits.float(), targets, frames, torch.tensor([5, 4, 5]), blank=0)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses[0], losses[-1]
