"""RNN-T loss (Graves 2012, arXiv 1211.3711) with torchaudio's signature and meaning, fast on a CPU."""

import math
import operator
from typing import SupportsIndex

import torch
import torchaudio
from torch import Tensor

from qstudy.loss.kernels import KernelLoss
from qstudy.loss.portable import PortableLoss

REDUCTIONS = ("none", "mean", "sum")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.int32, torch.int64)


def rnnt_loss(
    logits: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = -1,
    clamp: float = -1,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log probability of `targets`, summed over all alignments with `logits`.

    The softmax over V is part of it. What lies beyond an utterance's lengths is never looked at, and its gradient is
    zero. An utterance that the logits make impossible (-inf) has the loss inf; one with NaN in its logits has the loss
    NaN; their gradients are NaN, those of the batch's other utterances are not touched. It can be differentiated once:
    `create_graph=True`, for a penalty on its gradient, is refused.

    Which code computes it: numba loops for float32 on a CPU (`kernels`); on CUDA, torchaudio's own kernel, hard to
    better and well kept (slow and less exact is only its CPU version); for all else, such as float64, other devices,
    and utterances too short for torchaudio, one vector operation per diagonal of the lattice, in torch (`portable`).

    Args:
        logits: output of the joiner, (B, T, U+1, V); float32, or float64 where the device has it; float16 and bfloat16
            are computed in float32, and the gradient comes back in their own dtype.
        targets: labels, (B, U), int32 or int64; values beyond `target_lengths` do not matter.
        logit_lengths: encoder frames of each utterance, (B,), int32 or int64, from 1 to T.
        target_lengths: labels of each utterance, (B,), int32 or int64, from 0 to U.
        blank: the blank's place in V; negative counts from the end.
        clamp: if positive, each element of the gradient of each utterance's loss is clamped to [-clamp, clamp], before
            it is multiplied by what comes from above.
        reduction: over utterances: `mean`, `sum`, or `none`.

    Returns:
        The loss, a scalar, or (B,) if `reduction` is `none`; float32, or float64 for float64 logits.

    Raises:
        ValueError: a shape, dtype, device, length, target or option is not as above.
        TypeError: something is no tensor, or blank or clamp are no numbers.
        RuntimeError: while differentiating with `create_graph=True`.

    Example:
        >>> logits = torch.zeros(1, 2, 2, 3, requires_grad=True)  # 2 frames, 1 label, 3 scores each
        >>> lengths = torch.tensor([2]), torch.tensor([1])
        >>> loss = qstudy.rnnt_loss(logits, torch.tensor([[1]]), *lengths, blank=0)  # 2 alignments of 3 steps
        >>> bool(torch.isclose(loss, -torch.log(torch.tensor(2 / 27))))
        True
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}, but must be one of {', '.join(REDUCTIONS)}.")
    check_clamp(clamp)
    check_shapes(logits, targets, logit_lengths, target_lengths)
    blank = blank_place(blank, logits.shape[3])
    frames, labels = logit_lengths.long(), target_lengths.long()
    check_values(logits.shape[1], logits.shape[3], targets, frames, labels, blank)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    losses = per_utterance(wide, targets.long(), frames, labels, blank, clamp)
    if losses.requires_grad:
        losses.register_hook(refuse_graph)  # not once_differentiable: that says nothing where the loss is the last node
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def per_utterance(logits: Tensor, targets: Tensor, frames: Tensor, labels: Tensor, blank: int, clamp: float) -> Tensor:
    """The loss of each utterance (B,) by the code that suits the device; arguments are checked and int64."""
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        arguments = (logits, targets, frames, labels)
        return KernelLoss.apply(*(each.contiguous() for each in arguments), blank, clamp)
    if logits.device.type == "cuda" and logits.dtype == torch.float32 and torchaudio_can(logits, frames, labels):
        return torchaudio_loss(logits, targets, frames, labels, blank, clamp)
    return PortableLoss.apply(logits, targets, frames, labels, blank, clamp)


def torchaudio_can(logits: Tensor, frames: Tensor, labels: Tensor) -> bool:
    """Whether torchaudio's CUDA kernel is right: it counts in int32, and errs on utterances of one frame or label
    (github.com/pytorch/audio, issue 3048) or of none."""
    return logits.numel() < 2**31 and int(frames.min()) > 1 and int(labels.min()) > 1


def torchaudio_loss(
    logits: Tensor, targets: Tensor, frames: Tensor, labels: Tensor, blank: int, clamp: float
) -> Tensor:
    """torchaudio's loss of each utterance (B,), cut to the longest utterance, as it demands."""
    longest, most = int(frames.max()), int(labels.max())
    return torchaudio.functional.rnnt_loss(
        logits[:, :longest, : most + 1].contiguous(),
        targets[:, :most].int().contiguous(),
        frames.int(),
        labels.int(),
        blank,
        clamp,
        reduction="none",
    )


def refuse_graph(upstream: Tensor) -> None:
    """Raise RuntimeError if the gradient is to be differentiated: it would count as a constant."""
    if torch.is_grad_enabled():
        raise RuntimeError("rnnt_loss has no second derivative; differentiate it without create_graph=True.")


def blank_place(blank: SupportsIndex, size: int) -> int:
    """The blank's place among `size` labels, from 0; raises TypeError if it is no integer, ValueError if outside."""
    try:
        place = operator.index(blank)
    except TypeError as error:
        raise TypeError(f"blank is {blank!r}, but must be an integer.") from error
    if not -size <= place < size:
        raise ValueError(f"blank is {place}, but the logits have {size} labels.")
    return place % size


def check_clamp(clamp: float) -> None:
    """Raise TypeError unless it is a number, ValueError if it is NaN."""
    if not isinstance(clamp, int | float):
        raise TypeError(f"clamp is {clamp!r}, but must be a number.")
    if math.isnan(clamp):
        raise ValueError("clamp is NaN, but must be a number.")


def check_shapes(logits: Tensor, targets: Tensor, logit_lengths: Tensor, target_lengths: Tensor) -> None:
    """Raise TypeError unless all are tensors, ValueError unless shapes, dtypes and devices fit each other."""
    for name, value in (
        ("logits", logits),
        ("targets", targets),
        ("logit_lengths", logit_lengths),
        ("target_lengths", target_lengths),
    ):
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            raise TypeError(f"{name} must be a dense tensor, but are {type(value).__name__}.")
    if logits.dim() != 4 or 0 in logits.shape or logits.dtype not in FLOATS:
        raise ValueError(f"logits must be float (B, T, U+1, V) and not empty, but are {describe(logits)}.")
    batch, columns = logits.shape[0], logits.shape[2]
    for name, tensor, shape in (
        ("targets", targets, (batch, columns - 1)),
        ("logit_lengths", logit_lengths, (batch,)),
        ("target_lengths", target_lengths, (batch,)),
    ):
        if tensor.shape != shape or tensor.dtype not in INTEGERS:
            raise ValueError(f"{name} must be int32 or int64 {shape} for these logits, but are {describe(tensor)}.")
        if tensor.device != logits.device:
            raise ValueError(f"{name} are on {tensor.device}, but the logits are on {logits.device}.")


def check_values(longest: int, size: int, targets: Tensor, frames: Tensor, labels: Tensor, blank: int) -> None:
    """Raise ValueError unless no length exceeds `longest` frames or the targets, and these lie in `size` labels other
    than blank."""
    for name, lengths, low, high in (
        ("logit_lengths", frames, 1, longest),
        ("target_lengths", labels, 0, targets.shape[1]),
    ):
        smallest, largest = int(lengths.min()), int(lengths.max())
        if smallest < low or largest > high:
            raise ValueError(f"{name} must lie between {low} and {high}, but reach from {smallest} to {largest}.")
    used = torch.arange(targets.shape[1], device=targets.device) < labels[:, None]
    wrong = used & ((targets < 0) | (targets >= size) | (targets == blank))
    if wrong.any():
        raise ValueError(
            f"targets must lie between 0 and {size - 1} and not be the blank {blank}, "
            f"but one is {int(targets[wrong][0])}."
        )


def describe(tensor: Tensor) -> str:
    """Dtype and shape, for an error message."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
