"""On every device the same numbers as by torch on the processor: policies, loss, decoding, a step of training."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny import packed, speech, talkative
from torch import Tensor
from torch.nn import functional as F

from qstudy.loss.rnnt import rnnt_loss
from qstudy.model import RNNT
from qstudy.quant import bfloat16
from qstudy.quant.kernels import SWITCH
from qstudy.quant.policies import QuantPolicy, build_policy
from qstudy.recognize.greedy import greedy

CPU = torch.device("cpu")
W4A8 = {"*": {"weight": 4, "activation": 8}}
POLICIES: dict[str, dict[str, Any]] = {
    "float": {"name": "float"},
    "ptq": {"name": "ptq", "layers": W4A8},
    "ptq, gptq, kl": {"name": "ptq", "layers": W4A8, "rounding": "gptq", "activation_range": "kl"},
    "fake_qat": {"name": "fake_qat", "layers": W4A8},
    "fake_qat, asymmetric": {"name": "fake_qat", "layers": W4A8, "symmetric": False},
    "native_int": {"name": "native_int", "layers": W4A8},
    "native_int, 16 bits": {"name": "native_int", "layers": {"*": {"weight": 16, "activation": 16}}},
    "s8bqat": {"name": "s8bqat", "layers": W4A8},
    "accelerator_aware": {"name": "accelerator_aware", "layers": W4A8},
    "int4_e2e": {"name": "int4_e2e", "edges": 8},
}


def batch(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Features, their lengths and targets of three utterances."""
    targets = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3], [5, 8, 9, 7, 9]])
    return tuple(each.to(device) for each in (speech(), torch.tensor([80, 71, 66]), targets))  # type: ignore[return-value]


def loss_of(model: RNNT) -> Tensor:
    """Of the batch above, on the model's device."""
    features, lengths, targets = batch(next(model.parameters()).device)
    logits, frames, _ = model(features, lengths, targets)
    return rnnt_loss(logits.float(), targets, frames, torch.full_like(frames, targets.shape[1]), blank=0)


def quantized(policy: dict[str, Any], device: torch.device) -> tuple[RNNT, QuantPolicy]:
    """A model in training under a calibrated policy; all of it done on the device."""
    model, built = talkative().to(device).train(), build_policy(policy)
    built.prepare(model)

    def passes() -> Iterator[None]:
        yield model(*batch(device)) and None

    with torch.no_grad():
        built.calibrate(model, passes())
    built.project_(model, 100)
    return model, built


def outcome(policy: dict[str, Any], device: torch.device) -> tuple[float, Tensor]:
    """The loss with the policy's penalty, and all gradients in one vector."""
    model, built = quantized(policy, device)
    loss = loss_of(model) + built.penalty(model, 100)
    loss.backward()
    wanted = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(each.device.type == device.type for each in [*wanted, *model.buffers()])
    return loss.item(), torch.cat([each.flatten() for each in wanted]).cpu()


@pytest.mark.parametrize("name", POLICIES)
def test_policies(name: str, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tie may fall to the other side where sums have another order: near, not equal."""
    loss, gradient = outcome(POLICIES[name], device)
    monkeypatch.setenv(SWITCH, "1")
    expected, other = outcome(POLICIES[name], CPU)
    assert loss == pytest.approx(expected, rel=0.02)
    assert float(F.cosine_similarity(gradient, other, dim=0)) > 0.98


def test_what_is_packed(device: torch.device) -> None:
    model, policy = quantized(POLICIES["native_int"], device)
    other, same = quantized(POLICIES["native_int"], CPU)
    found, expected = packed(model, policy).tensors, packed(other, same).tensors
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.device == CPU
        torch.testing.assert_close(tensor.float(), expected[name].float(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_loss(device: torch.device, reduction: str) -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(3, 9, 6, 11), torch.randint(1, 11, (3, 5))
    lengths = torch.tensor([9, 7, 3]), torch.tensor([5, 2, 0])
    results = []
    for kind, dtype in ((device, torch.float32), (CPU, torch.float64)):
        x = logits.to(kind, dtype).clone().requires_grad_()
        losses = rnnt_loss(x, *(each.to(kind) for each in (targets, *lengths)), blank=0, reduction=reduction)
        losses.sum().backward()
        assert x.grad is not None
        results.append((losses.detach().cpu().double(), x.grad.cpu().double()))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_greedy(device: torch.device) -> None:
    model = talkative()
    features, lengths, _ = batch(CPU)
    expected = greedy(model, *model.encoder(features, lengths)[:2]).hypotheses
    assert any(expected)
    model.to(device)
    assert greedy(model, *model.encoder(features.to(device), lengths.to(device))[:2]).hypotheses == expected


@pytest.mark.parametrize("name", ["native_int", "fake_qat", "accelerator_aware"])
def test_steps_of_training_lower_the_loss(name: str, device: torch.device) -> None:
    model, policy = quantized(POLICIES[name], device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(6):
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16.multiplies(device.type)):
            loss = loss_of(model)
        loss.backward()
        optimizer.step()
        policy.project_(model, step)
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
