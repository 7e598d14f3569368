"""`qstudy.loss` against a plain float64 reference, all alignments written out, and torchaudio."""

import itertools
import math
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qstudy.loss.kernels import KernelLoss
from qstudy.loss.portable import PortableLoss
from qstudy.loss.rnnt import per_utterance, rnnt_loss, torchaudio_loss

Batch = tuple[Tensor, Tensor, Tensor, Tensor]  # logits, targets, logit_lengths, target_lengths
CODES = {"kernels": KernelLoss.apply, "portable": PortableLoss.apply}
each_code = pytest.mark.parametrize("code", CODES.values(), ids=CODES.keys())


def reference(logits: Tensor, targets: list[int], blank: int) -> Tensor:
    """The loss of one utterance without padding, node by node: logits (T, U+1, V) float64."""
    log_probs = logits.log_softmax(2)
    frames, columns, _ = logits.shape
    alpha: dict[tuple[int, int], Tensor] = {(0, 0): torch.zeros((), dtype=torch.float64)}
    for t, u in itertools.product(range(frames), range(columns)):
        ways = []
        if t > 0:
            ways.append(alpha[t - 1, u] + log_probs[t - 1, u, blank])
        if u > 0:
            ways.append(alpha[t, u - 1] + log_probs[t, u - 1, targets[u - 1]])
        if ways:
            alpha[t, u] = torch.stack(ways).logsumexp(0)
    return -(alpha[frames - 1, columns - 1] + log_probs[frames - 1, columns - 1, blank])


def reference_batch(batch: Batch, blank: int) -> tuple[Tensor, Tensor]:
    """The loss of each utterance, and the gradient of their sum, in float64."""
    logits = batch[0].detach().double().requires_grad_()
    losses = torch.stack(
        [
            reference(logits[b, :frames, : labels + 1], batch[1][b, :labels].tolist(), blank)
            for b, (frames, labels) in enumerate(zip(batch[2].tolist(), batch[3].tolist(), strict=True))
        ]
    )
    losses.sum().backward()
    assert logits.grad is not None
    return losses.detach(), logits.grad


def make_batch(shape: tuple[int, int, int, int], blank: int, seed: int = 0, spread: float = 3.0) -> Batch:
    """Random logits (B, T, U+1, V) float32, targets without blank, random lengths up to the full."""
    generator = torch.Generator().manual_seed(seed)
    batch, frames, labels, size = shape
    logits = torch.randn(batch, frames, labels + 1, size, generator=generator) * spread
    targets = (torch.randint(1, size, (batch, labels), generator=generator) + blank) % size
    logit_lengths = torch.randint(1, frames + 1, (batch,), generator=generator)
    target_lengths = torch.randint(0, labels + 1, (batch,), generator=generator)
    logit_lengths[0], target_lengths[-1] = frames, labels
    return logits, targets, logit_lengths, target_lengths


def run(code: Callable[..., Tensor], batch: Batch, blank: int, clamp: float = -1.0) -> tuple[Tensor, Tensor]:
    """The loss of each utterance, and the gradient of their sum."""
    logits = batch[0].detach().clone().requires_grad_()
    losses = code(logits, *batch[1:], blank, clamp)
    losses.sum().backward()
    assert logits.grad is not None
    return losses.detach(), logits.grad


def test_reference_sums_all_alignments() -> None:
    logits = torch.randn(3, 3, 4, dtype=torch.float64)  # 3 frames, 2 labels
    log_probs, targets, total = logits.log_softmax(2), [2, 3], 0.0
    for order in set(itertools.permutations("bbll")):  # the last blank is always last
        t, u, probability = 0, 0, 1.0
        for step in (*order, "b"):
            probability *= math.exp(log_probs[t, u, 0 if step == "b" else targets[u]])
            t, u = (t + 1, u) if step == "b" else (t, u + 1)
        total += probability
    assert float(reference(logits, targets, 0)) == pytest.approx(-math.log(total), abs=1e-12)


@each_code
@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(0, 5), st.integers(2, 40)),
    data=st.data(),
    spread=st.sampled_from([0.1, 1.0, 5.0, 30.0]),
)
def test_equals_reference(code: Callable, shape: tuple[int, int, int, int], data: st.DataObject, spread: float) -> None:
    blank = data.draw(st.integers(0, shape[3] - 1), "blank")
    batch = make_batch(shape, blank, data.draw(st.integers(0, 1000), "seed"), spread)
    losses, gradient = run(code, batch, blank)
    expected, expected_gradient = reference_batch(batch, blank)
    torch.testing.assert_close(losses.double(), expected, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=0, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 30), st.integers(1, 12), st.integers(2, 70)),
    blank=st.integers(-2, 1),
    clamp=st.sampled_from([-1.0, 0.0, 0.3, 0.01]),
    reduction=st.sampled_from(["none", "mean", "sum"]),
)
def test_equals_torchaudio(shape: tuple[int, int, int, int], blank: int, clamp: float, reduction: str) -> None:
    logits, targets, logit_lengths, target_lengths = make_batch(shape, blank % shape[3])
    logit_lengths[-1], target_lengths[0] = shape[1], shape[2]
    found = []
    for loss in (rnnt_loss, torchaudio.functional.rnnt_loss):
        own = logits.clone().requires_grad_()
        integers = (targets.int(), logit_lengths.int(), target_lengths.int())
        value = loss(own, *integers, blank=blank, clamp=clamp, reduction=reduction)
        (value * torch.linspace(-1, 2, value.numel()).view(value.shape)).sum().backward()
        found.append((value.detach(), own.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-3)


def test_torchaudio_is_called_with_what_it_demands() -> None:  # on CUDA; its CPU version demands the same
    batch = make_batch((3, 9, 5, 7), blank=2)
    batch[2].clamp_(max=6), batch[3].clamp_(max=3)
    torch.testing.assert_close(run(torchaudio_loss, batch, 2), run(KernelLoss.apply, batch, 2), rtol=1e-3, atol=1e-3)


@each_code
@pytest.mark.parametrize("shape", [(1, 1000, 200, 8), (2, 40, 300, 5)], ids=["long", "more labels than frames"])
def test_long_utterances_keep_their_digits(code: Callable, shape: tuple[int, int, int, int]) -> None:
    batch = make_batch(shape, blank=0, spread=1.0)
    losses, gradient = run(code, batch, 0)
    exact, exact_gradient = run(PortableLoss.apply, (batch[0].double(), *batch[1:]), 0)
    torch.testing.assert_close(losses.double(), exact, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=0, atol=1e-5)


@each_code
def test_no_gradient_is_subnormal(code: Callable[..., Tensor]) -> None:
    """Far from the likely alignments a node's probability falls below what a float holds in full precision; products
    with such numbers take many times as long on some processors."""
    batch = make_batch((1, 150, 50, 20), 0, spread=1.0)
    _, gradient = run(code, batch, 0)
    assert not ((gradient != 0) & (gradient.abs() < torch.finfo(torch.float32).tiny)).any()
    assert (gradient == 0).all(3).float().mean() > 0.05
    _, exact = reference_batch(batch, 0)
    torch.testing.assert_close(gradient.double(), exact, rtol=0, atol=1e-5)


def test_gradcheck_in_float64() -> None:
    batch = make_batch((3, 4, 3, 5), blank=1)
    logits, rest = batch[0], batch[1:]
    assert torch.autograd.gradcheck(lambda x: rnnt_loss(x, *rest, blank=1), logits.double().requires_grad_())


@each_code
def test_large_logits_keep_their_digits(code: Callable) -> None:
    batch = make_batch((2, 5, 3, 9), blank=0)
    shifted = (batch[0] + 4096, *batch[1:])  # float32 has 3 decimals there
    batch = (shifted[0] - 4096, *batch[1:])
    torch.testing.assert_close(run(code, shifted, 0), run(code, batch, 0), rtol=1e-6, atol=1e-6)


@each_code
def test_padding_is_never_looked_at(code: Callable) -> None:
    logits, targets, logit_lengths, target_lengths = make_batch((2, 6, 4, 5), blank=0)
    logit_lengths[:], target_lengths[:] = torch.tensor([6, 3]), torch.tensor([1, 4])
    clean = run(code, (logits, targets, logit_lengths, target_lengths), 0)
    dirty, dirty_targets = logits.clone(), targets.clone()
    dirty[0, :, 2:], dirty[1, 3:], dirty_targets[0, 1:] = math.nan, math.inf, -7
    losses, gradient = run(code, (dirty, dirty_targets, logit_lengths, target_lengths), 0)
    assert torch.equal(losses, clean[0])
    assert torch.equal(gradient, clean[1])
    assert not gradient[0, :, 2:].any()
    assert not gradient[1, 3:].any()


@each_code
@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_broken_logits_give_nan_to_their_utterance_alone(code: Callable, value: float) -> None:
    batch = make_batch((3, 5, 3, 4), blank=0)
    batch[2][1], batch[3][1] = 5, 3
    sound_losses, sound_gradient = run(code, batch, 0)
    batch[0][1, 2, 1, 3] = value
    losses, gradient = run(code, batch, 0)
    assert losses[1].isnan()
    assert gradient[1].isnan().any()
    for b in (0, 2):
        assert torch.equal(losses[b], sound_losses[b])
        assert torch.equal(gradient[b], sound_gradient[b])


@each_code
def test_forbidden_labels(code: Callable) -> None:
    batch = make_batch((1, 4, 2, 5), blank=0)
    batch[1][:] = torch.tensor([[1, 2]])
    batch[0][..., 3] = -math.inf  # a label that the target does not have
    batch[0][0, 1, :, 1] = -math.inf  # some alignments
    losses, gradient = run(code, batch, 0)
    expected, _ = reference_batch(batch, 0)
    torch.testing.assert_close(losses.double(), expected, rtol=1e-6, atol=1e-6)
    assert gradient.isfinite().all()
    assert not gradient[..., 3].any()
    batch[0][..., 2] = -math.inf  # all alignments
    assert run(code, batch, 0)[0].tolist() == [math.inf]


@each_code
def test_clamp_comes_before_scaling(code: Callable) -> None:
    batch = make_batch((2, 5, 3, 4), blank=0)
    scale, clamp = torch.tensor([3.0, -2.0]), 0.05
    _, whole = run(code, batch, 0)
    logits = batch[0].clone().requires_grad_()
    (code(logits, *batch[1:], 0, clamp) * scale).sum().backward()
    assert (whole.abs() > clamp).any()
    torch.testing.assert_close(
        logits.grad, whole.clamp(-clamp, clamp) * scale[:, None, None, None], rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    batch = make_batch((2, 5, 3, 6), blank=0)
    logits, rest = batch[0], batch[1:]
    half = logits.to(dtype).requires_grad_()
    full = half.detach().float().requires_grad_()
    losses = [rnnt_loss(x, *rest, blank=0) for x in (half, full)]
    torch.autograd.backward(losses)
    assert losses[0].dtype == torch.float32
    assert torch.equal(losses[0], losses[1])
    assert half.grad is not None
    assert full.grad is not None
    assert torch.equal(half.grad, full.grad.to(dtype))


def test_layout_and_integer_width_do_not_matter() -> None:
    batch = make_batch((3, 5, 4, 6), blank=0)
    strided = (
        batch[0].permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
        batch[1].t().contiguous().t().int(),
        batch[2].repeat_interleave(2)[::2].int(),
        batch[3].int(),
    )
    assert not strided[0].is_contiguous()
    a, b = (run(lambda x, y, t, u, *_: rnnt_loss(x, y, t, u, blank=0), each, 0) for each in (batch, strided))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])


def test_gradient_only_when_asked_for() -> None:
    batch = make_batch((2, 5, 3, 6), blank=0)
    logits, rest = batch[0], batch[1:]
    assert rnnt_loss(logits, *rest, blank=0).grad_fn is None
    own = logits.requires_grad_()
    with torch.no_grad():
        assert rnnt_loss(own, *rest, blank=0).grad_fn is None
    loss = rnnt_loss(own, *rest, blank=0)
    loss.backward(retain_graph=True)
    assert own.grad is not None
    once = own.grad.clone()
    loss.backward()
    assert torch.equal(own.grad, 2 * once)


def test_thread_count_does_not_change_a_bit(threads: Callable[[int], None]) -> None:
    batch = make_batch((3, 17, 6, 29), blank=0)
    found = []
    for count in (1, 2, 5):
        threads(count)
        found.append(run(KernelLoss.apply, batch, 0))
    for other in found[1:]:
        assert torch.equal(found[0][0], other[0])
        assert torch.equal(found[0][1], other[1])


def test_several_callers_and_a_forked_child(threads: Callable[[int], None]) -> None:
    threads(2)
    batch = make_batch((3, 17, 6, 29), blank=0)
    expected = run(KernelLoss.apply, batch, 0)[1]
    found: list[Tensor] = []
    callers = [threading.Thread(target=lambda: found.append(run(KernelLoss.apply, batch, 0)[1])) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 4
    assert all(torch.equal(expected, each) for each in found)
    child = os.fork()
    if child == 0:  # its threads are gone: new ones must come
        with torch.no_grad():
            losses = KernelLoss.apply(*batch, 0, -1.0)
        os._exit(0 if losses.isfinite().all() else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("labels", [5, 0])
def test_cuda_equals_cpu(labels: int) -> None:
    batch = make_batch((3, 9, labels, 11), blank=0)
    batch[2].clamp_(max=8)
    losses, gradient = run(per_utterance, tuple(each.cuda() for each in batch), 0)  # type: ignore[arg-type]
    torch.testing.assert_close((losses.cpu(), gradient.cpu()), run(per_utterance, batch, 0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(2, 4, 6)}, r"logits must be float \(B, T, U\+1, V\) .* float32 \(2, 4, 6\)"),
        ({"logits": torch.zeros(2, 4, 4, 6, dtype=torch.int64)}, "logits must be float"),
        ({"logits": torch.zeros(2, 0, 4, 6)}, "not empty"),
        ({"targets": torch.ones(2, 4, dtype=torch.int64)}, r"targets must be int32 or int64 \(2, 3\)"),
        ({"targets": torch.ones(2, 3)}, r"targets .* float32 \(2, 3\)"),
        ({"targets": torch.tensor([[1, 2, 0], [1, 2, 3]])}, "targets must .* not be the blank 0, but one is 0"),
        ({"targets": torch.tensor([[1, 2, 3], [1, 6, 3]])}, "between 0 and 5 .* but one is 6"),
        ({"targets": torch.tensor([[1, -1, 3], [1, 2, 3]])}, "but one is -1"),
        ({"logit_lengths": torch.tensor([4])}, r"logit_lengths must be int32 or int64 \(2,\)"),
        ({"logit_lengths": torch.tensor([4, 5])}, "logit_lengths must lie between 1 and 4, but reach from 4 to 5"),
        ({"logit_lengths": torch.tensor([0, 4])}, "logit_lengths must lie between 1 and 4"),
        ({"target_lengths": torch.tensor([-1, 3])}, "target_lengths must lie between 0 and 3"),
        ({"target_lengths": torch.tensor([2, 4])}, "target_lengths must lie between 0 and 3"),
        ({"blank": 6}, "blank is 6, but the logits have 6 labels"),
        ({"blank": -7}, "blank is -7"),
        ({"blank": 0.0}, "blank is 0.0, but must be an integer"),
        ({"blank": None}, "blank is None"),
        ({"clamp": "1"}, "clamp is '1', but must be a number"),
        ({"clamp": math.nan}, "clamp is NaN"),
        ({"logits": [[0.0]]}, "logits must be a dense tensor, but are list"),
        ({"logits": torch.zeros(2, 4, 4, 6).to_sparse()}, "logits must be a dense tensor"),
        ({"logits": torch.zeros(2, 4, 4, 6, dtype=torch.complex64)}, "logits must be float"),
        ({"logit_lengths": [4, 4]}, "logit_lengths must be a dense tensor, but are list"),
        ({"reduction": "average"}, "reduction is 'average', but must be one of none, mean, sum"),
        ({"targets": torch.ones(2, 3, dtype=torch.int64, device="meta")}, "targets are on meta"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    sound: dict[str, Any] = {
        "logits": torch.zeros(2, 4, 4, 6),
        "targets": torch.tensor([[1, 2, 3], [3, 4, 5]]),
        "logit_lengths": torch.tensor([4, 4]),
        "target_lengths": torch.tensor([3, 3]),
        "blank": 0,
    }
    assert rnnt_loss(**sound).isfinite()
    with pytest.raises((TypeError, ValueError), match=message):
        rnnt_loss(**(sound | change))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_gradient_penalty_is_refused(device: torch.device, dtype: torch.dtype, reduction: str) -> None:
    """It would be a constant: the penalty would train nothing, without a word."""
    logits, *rest = (each.to(device) for each in make_batch((2, 5, 3, 6), blank=0))
    hidden = logits.to(dtype).requires_grad_()
    loss = rnnt_loss(hidden * 2, *rest, blank=0, reduction=reduction).sum()
    with pytest.raises(RuntimeError, match=r"no second derivative; .* without create_graph"):
        torch.autograd.grad(loss, hidden, create_graph=True)
