"""The transducer's head in one function, against joiner and loss over the logits of all nodes."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.loss import head
from qstudy.loss.head import Limits, head_loss
from qstudy.loss.rnnt import rnnt_loss
from qstudy.model.joiners import AdditiveJoiner, Joiner, MultiplicativeJoiner
from qstudy.quant.arithmetic import Affine
from qstudy.quant.arithmetics.fake import FakeArithmetic
from qstudy.quant.arithmetics.native import NativeArithmetic
from qstudy.quant.policies import build_policy
from qstudy.quant.quantizers import activation_quantizers

Labels = tuple[Tensor, Tensor, Tensor]  # targets, frames, labels
TINY = Limits(tile=2**12, group=2**13, kept=2**13)
"""Several groups, and more than is kept."""
both_codes = pytest.mark.parametrize("portable", ["0", "1"], ids=["compiled", "portable"])
combinations = pytest.mark.parametrize("multiplied", [False, True], ids=["added", "multiplied"])


def make_labels(batch: int, frames: int, labels: int, size: int, seed: int = 0) -> Labels:
    """Random targets without blank (0), random lengths up to the full."""
    dice = torch.Generator().manual_seed(seed)
    targets = torch.randint(1, size, (batch, labels), generator=dice)
    lengths = [torch.randint(low, high + 1, (batch,), generator=dice) for low, high in ((1, frames), (0, labels))]
    lengths[0][0], lengths[1][-1] = frames, labels
    return targets, *lengths


def make_numbers(batch: int, frames: int, labels: int, size: int, hidden: int, spread: float = 1.0) -> list[Tensor]:
    """Both sides, weight and bias: leaves with a gradient."""
    dice = torch.Generator().manual_seed(1)
    shapes = ((batch, frames, hidden), (batch, labels + 1, hidden), (size, hidden), (size,))
    scales = (1.0, 1.0, spread / math.sqrt(hidden), 0.5)
    pairs = zip(shapes, scales, strict=True)
    return [(torch.randn(shape, generator=dice) * scale).requires_grad_() for shape, scale in pairs]


def whole(numbers: list[Tensor], multiplied: bool, labels: Labels) -> Tensor:
    """The loss by way of all logits."""
    left, right = numbers[0].unsqueeze(2), numbers[1].unsqueeze(1)
    joined = torch.tanh(left * right if multiplied else left + right)
    return rnnt_loss(F.linear(joined, *numbers[2:]), *labels, blank=0)


def tiled(numbers: list[Tensor], multiplied: bool, labels: Labels) -> Tensor:
    """The loss by tiles."""
    return head_loss(numbers[0], numbers[1], multiplied, Affine(*numbers[2:]), *labels, blank=0)


def gradients(loss: Tensor, of: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(3.0 * loss, of))


def assert_close(found: list[Tensor], expected: list[Tensor], rtol: float = 1e-5) -> None:
    """As parts of the largest number of each tensor; sums of ones that cancel keep an absolute error."""
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=rtol * max(float(theirs.abs().max()), 0.3))


@both_codes
@combinations
@pytest.mark.parametrize("limits", [head.LIMITS["cpu"], TINY], ids=["usual tiles", "tiny tiles"])
@settings(max_examples=25)
@given(
    shape=st.tuples(
        st.integers(1, 5), st.integers(1, 30), st.integers(0, 12), st.integers(2, 70), st.sampled_from([1, 8, 33])
    ),
    seed=st.integers(0, 100),
    spread=st.sampled_from([0.3, 3.0, 10.0]),
)
def test_equals_the_whole_logits(
    portable: str, multiplied: bool, limits: Limits, shape: tuple[int, ...], seed: int, spread: float
) -> None:
    labels, numbers = make_labels(*shape[:4], seed=seed), make_numbers(*shape, spread=spread)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QSTUDY_PORTABLE", portable)
        patch.setitem(head.LIMITS, "cpu", limits)
        found, expected = tiled(numbers, multiplied, labels), whole(numbers, multiplied, labels)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert_close(gradients(found, numbers), gradients(expected, numbers))


@both_codes
@pytest.mark.parametrize("wanted", ["gradients", "loss"])
@pytest.mark.parametrize("many", [2, 9])
def test_threads_share_the_utterances(
    portable: str, wanted: str, many: int, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QSTUDY_PORTABLE", portable)
    monkeypatch.setitem(head.LIMITS, "cpu", TINY)
    labels, numbers = make_labels(5, 30, 8, 20), make_numbers(5, 30, 8, 20, 16)
    results = []
    for count in (1, many, many):
        threads(count)
        loss = tiled([each.detach() for each in numbers] if wanted == "loss" else numbers, False, labels)
        results.append([loss.detach(), *(gradients(loss, numbers) if wanted == "gradients" else ())])
    assert_close(results[1], results[0])
    assert all(torch.equal(*pair) for pair in zip(*results[1:], strict=True)), "the same threads, the same sums"


@pytest.mark.parametrize("spread", [1.0, 40.0], ids=["any alignment", "few alignments"])
def test_what_few_alignments_pass_is_left_out_within_rounding(spread: float) -> None:
    shape = (2, 200, 40, 30, 32)
    labels, numbers = make_labels(*shape[:4]), make_numbers(*shape, spread=spread)
    labels[1][:], labels[2][:] = 200, 40
    found, expected = tiled(numbers, False, labels), whole([each.double() for each in numbers], False, labels)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    assert_close(gradients(found, numbers), gradients(expected, numbers))


@both_codes
def test_padding_is_never_looked_at(portable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QSTUDY_PORTABLE", portable)
    shape = (2, 6, 4, 5, 8)
    labels, numbers = make_labels(*shape[:4]), make_numbers(*shape)
    labels[1][:], labels[2][:] = torch.tensor([6, 3]), torch.tensor([1, 4])
    clean = gradients(tiled(numbers, False, labels), numbers)
    with torch.no_grad():
        numbers[0][1, 3:], numbers[1][0, 2:], labels[0][0, 1:] = math.nan, math.inf, -7
    dirty = gradients(tiled(numbers, False, labels), numbers)
    assert all(torch.equal(*pair) for pair in zip(clean, dirty, strict=True))
    assert not dirty[0][1, 3:].any()
    assert not dirty[1][0, 2:].any()


@both_codes
def test_a_broken_utterance_breaks_its_own_sides_alone(portable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QSTUDY_PORTABLE", portable)
    monkeypatch.setitem(head.LIMITS, "cpu", TINY)
    shape = (3, 9, 4, 6, 8)
    labels, numbers = make_labels(*shape[:4]), make_numbers(*shape)
    labels[1][1], labels[2][1] = 9, 4
    sound = gradients(tiled(numbers, False, labels), numbers)
    with torch.no_grad():
        numbers[0][1, 2] = math.nan
    loss = tiled(numbers, False, labels)
    broken = gradients(loss, numbers)
    assert loss.isnan()
    assert broken[0][1].isnan().any()
    assert broken[2].isnan().all()
    for side in (0, 1):
        torch.testing.assert_close(broken[side][[0, 2]], sound[side][[0, 2]], rtol=1e-5, atol=1e-7)


def test_gradcheck_in_float64() -> None:
    labels = make_labels(3, 4, 3, 5)
    numbers = [each.detach().double().requires_grad_() for each in make_numbers(3, 4, 3, 5, 6)]
    assert torch.autograd.gradcheck(lambda *numbers: tiled(list(numbers), True, labels), numbers)


def test_is_differentiated_once() -> None:
    labels, numbers = make_labels(2, 4, 3, 5), make_numbers(2, 4, 3, 5, 6)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(tiled(numbers, False, labels), numbers, create_graph=True)
    with torch.no_grad():
        assert not tiled(numbers, False, labels).requires_grad


def test_wrong_lengths_and_labels_are_refused() -> None:
    labels, numbers = make_labels(2, 4, 3, 5), make_numbers(2, 4, 3, 5, 6)
    with pytest.raises(ValueError, match="logit_lengths must lie between 1 and 4"):
        tiled(numbers, False, (labels[0], labels[1] + 4, labels[2]))
    with pytest.raises(ValueError, match="targets must lie"):
        tiled(numbers, False, (labels[0] * 0, *labels[1:]))


@both_codes
def test_bfloat16_is_as_near_to_float32_as_before(portable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QSTUDY_PORTABLE", portable)
    shape = (4, 30, 10, 40, 64)
    labels, numbers = make_labels(*shape[:4]), make_numbers(*shape)
    exact = gradients(whole(numbers, False, labels), numbers)
    with torch.autocast("cpu", torch.bfloat16):
        sides = [numbers[0].bfloat16(), numbers[1].bfloat16(), *numbers[2:]]
        found, expected = tiled(sides, False, labels), whole(sides, False, labels)
    distances = [
        [float((mine - theirs).norm() / theirs.norm()) for mine, theirs in zip(each, exact, strict=True)]
        for each in (gradients(found, numbers), gradients(expected, numbers))
    ]
    for mine, theirs in zip(*distances, strict=True):
        assert 0 < mine < 1.1 * theirs


# Joiners


def joiner_losses(joiner: Joiner, seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Loss and gradients of everything, by parts and as a whole; quantizers observe the same each time."""
    labels = make_labels(3, 20, 6, 12, seed)
    dice = torch.Generator().manual_seed(seed)
    encoded, predicted = torch.randn(3, 20, 10, generator=dice), torch.randn(3, 7, 14, generator=dice)
    trained = [encoded.requires_grad_(), predicted.requires_grad_(), *joiner.parameters()]
    state = {name: value.clone() for name, value in joiner.state_dict().items()}
    joint = joiner.joint(encoded, predicted)
    assert joint is not None
    loss = head_loss(*joint, *labels, blank=0)
    found = [loss, *gradients(loss, trained), *joiner.buffers()]
    found = [each.detach().float().clone() for each in found]
    joiner.load_state_dict(state)
    loss = rnnt_loss(joiner(encoded, predicted).float(), *labels, blank=0)
    return found, [each.detach().float() for each in (loss, *gradients(loss, trained), *joiner.buffers())]


def quantized_joiner(policy: dict[str, Any], kind: type[Joiner] = AdditiveJoiner) -> Joiner:
    """Calibrated once, in training."""
    torch.manual_seed(0)
    joiner = kind(10, 14, 12, 40.0, hidden=16).train()  # type: ignore[call-arg]
    built = build_policy(policy)
    built.prepare(joiner)
    encoded, predicted = torch.randn(3, 20, 10), torch.randn(3, 7, 14)
    with torch.no_grad():
        built.calibrate(joiner, (joiner(encoded, predicted) for _ in range(1)))
    built.project_(joiner, 1000)
    return joiner


W8A8 = {"*": {"weight": 8, "activation": 8}}
IN_TILES: dict[str, dict[str, Any]] = {
    "float": {"name": "float"},
    "fake_qat": {"name": "fake_qat", "layers": W8A8},
    "fake_qat with zero points": {"name": "fake_qat", "layers": W8A8, "symmetric": False},
    "weights alone": {"name": "native_int", "layers": {"*": {"weight": 4}}},
    "native_int": {"name": "native_int", "layers": W8A8},
    "native_int by row": {"name": "native_int", "layers": W8A8, "activation_range": "row"},
    "accelerator_aware": {"name": "accelerator_aware", "layers": W8A8},
    "s8bqat": {"name": "s8bqat", "layers": {"*": {"weight": 5}}},
}


@pytest.mark.parametrize("policy", IN_TILES.values(), ids=IN_TILES.keys())
@pytest.mark.parametrize("kind", [AdditiveJoiner, MultiplicativeJoiner])
def test_every_arithmetic_gives_what_its_whole_product_gives(policy: dict[str, Any], kind: type[Joiner]) -> None:
    joiner = quantized_joiner(policy, kind)
    for seed in range(3):
        assert_close(*joiner_losses(joiner, seed), rtol=3e-5)


@pytest.mark.parametrize("policy", IN_TILES.values(), ids=IN_TILES.keys())
def test_every_arithmetic_in_several_threads(
    policy: dict[str, Any], threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(head.LIMITS, "cpu", TINY)
    joiner = quantized_joiner(policy)
    threads(3)
    for seed in range(3):
        assert_close(*joiner_losses(joiner, seed), rtol=3e-5)


def test_ranges_follow_what_is_joined() -> None:
    joiner = quantized_joiner(IN_TILES["fake_qat"])
    (quantizer,) = activation_quantizers(joiner.output)  # type: ignore[attr-defined]
    before = quantizer.scale.clone()
    joiner_losses(joiner)
    assert quantizer.observer_enabled
    assert not torch.equal(before, quantizer.scale)


TOGETHER: dict[str, dict[str, Any]] = {
    "trained ranges": {"name": "fake_qat", "layers": W8A8, "activation_range": "learned"},
}


@pytest.mark.parametrize("policy", TOGETHER.values(), ids=TOGETHER.keys())
def test_what_must_see_all_rows_at_once_is_left_whole(policy: dict[str, Any]) -> None:
    assert quantized_joiner(policy).joint(torch.randn(3, 20, 10), torch.randn(3, 7, 14)) is None


class Halved(AdditiveJoiner):
    """Ours, changed."""

    def combine(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        return super().combine(encoded, predicted) / 2


class Own(Joiner):
    """A joiner without a tanh."""

    def __init__(self, encoder: int, predictor: int, labels: int, frame_ms: float) -> None:
        super().__init__()
        self.encoder, self.predictor = nn.Linear(encoder, labels), nn.Linear(predictor, labels)

    def join(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        return encoded + predicted


@pytest.mark.parametrize("kind", [Halved, Own])
def test_a_joiner_of_the_users_is_left_whole(kind: type[Joiner]) -> None:
    joiner = kind(10, 14, 12, 40.0)  # type: ignore[call-arg]
    assert joiner.joint(torch.randn(3, 20, 10), torch.randn(3, 7, 14)) is None


class Doubled(FakeArithmetic):
    """An arithmetic of the user's that changes the product, and knows nothing of parts."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return 2 * super().linear(x, weight, bias)


class Renamed(NativeArithmetic):
    """One that changes nothing here."""


def test_an_arithmetic_of_the_users_that_multiplies_otherwise_is_left_whole() -> None:
    weight, rows = torch.randn(4, 3), partial(torch.randn, 2, 3)
    assert Doubled([None]).affine(weight, None, rows) is None
    assert Renamed([None]).affine(weight, None, rows) is not None


@combinations
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize(
    "limits", [head.LIMITS["cpu"], head.LIMITS_ELSEWHERE, TINY], ids=["CPU's tiles", "its", "tiny"]
)
def test_cuda_equals_cpu(limits: Limits, multiplied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(head, "limits", lambda like: limits)
    numbers, labels = make_numbers(5, 40, 12, 70, 33), make_labels(5, 40, 12, 70)
    there = [each.detach().cuda().requires_grad_() for each in numbers]
    here, cuda = tiled(numbers, multiplied, labels), tiled(there, multiplied, tuple(each.cuda() for each in labels))
    torch.testing.assert_close(cuda.cpu(), here, rtol=1e-5, atol=0)
    assert_close([each.cpu() for each in gradients(cuda, there)], gradients(here, numbers))
