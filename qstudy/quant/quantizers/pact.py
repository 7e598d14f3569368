"""PACT: a quantizer of activations whose range is a trained clip."""

from typing import Any

import torch
from torch import Tensor

from qstudy.quant.quantizers.base import TINY, ActivationQuantizer, bounds, finite_extremes
from qstudy.quant.quantizers.magnitude import Magnitude

RATIOS = 41  # candidates for the first clip, from 0.1 to 1.0 of the largest value seen
SAMPLE = 4096  # values of each calibration batch that the first clip is chosen on


class PactActivations(ActivationQuantizer):
    """2**bits - 1 equal levels from -alpha to alpha; alpha is trained.

    The paper's activations follow a ReLU and lie in [0, alpha]; a recurrent network's are signed, so the clip is
    symmetric. alpha starts where calibration's squared error is least.

    Source: Choi et al. 2018, arXiv 1805.06085.
    """

    trained, shifted = True, False
    zero_point: Tensor

    def __init__(self, bits: int) -> None:
        """Args: bits per activation."""
        super().__init__()
        self.bits = bits
        self.low, self.high = bounds(bits)
        self.clip = Magnitude()
        self.register_buffer("zero_point", torch.zeros(()))
        self._seen: list[Tensor] = []

    @property
    def alpha(self) -> Tensor:
        """() float32, above zero."""
        return self.clip()

    @property
    def scale(self) -> Tensor:  # type: ignore[override]
        """() float32, what one level is worth; no gradient."""
        return (self.alpha.detach() / self.high).clamp_min(TINY)

    def forward(self, x: Tensor) -> Tensor:
        """Fake-quantize x (any shape)."""
        if self.observer_enabled and self.training:
            self.observe(x)
        return pact(x.float(), self.alpha, self.scale, self.high) if self.fake_quant_enabled else x

    def observe(self, x: Tensor) -> None:
        """Keep a part of x for `compute_qparams`; raises Diverged if x holds values that are not finite."""
        if not x.numel():
            return
        finite_extremes(x, self.layer)
        self._seen.append(sample(x))

    @torch.no_grad()
    def compute_qparams(self) -> None:
        """Start alpha where the squared error of what was seen is least."""
        if not self._seen:
            return
        seen, self._seen = torch.cat(self._seen), []
        clips = torch.linspace(0.1, 1.0, RATIOS, device=seen.device) * seen.abs().amax().clamp_min(TINY)
        scales = (clips / self.high)[:, None]
        errors = ((seen / scales).round().clamp(self.low, self.high) * scales - seen).square().mean(1)
        self.clip.set(clips[errors.argmin()])


def sample(x: Tensor) -> Tensor:
    """At most SAMPLE values of x (any shape), always the same: (n,) float32.

    One from each of SAMPLE stretches of equal length, at a place that is drawn: at equal distances they could all be of
    one feature, or of one frame.
    """
    flat = x.detach().float().flatten()
    if len(flat) <= SAMPLE:
        return flat.clone()
    drawn = torch.rand(SAMPLE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    places = (torch.arange(SAMPLE) + drawn) * (len(flat) / SAMPLE)
    return flat[places.long().clamp_max(len(flat) - 1).to(flat.device)]


class _Pact(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, scale: Tensor, high: int) -> Tensor:
        ctx.save_for_backward(x, alpha)
        return torch.round(x / scale).clamp_(-high, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, alpha = ctx.saved_tensors
        clipped = x.abs() >= alpha
        grad_alpha = (grads[0] * x.sign() * clipped).sum()
        return grads[0] * ~clipped, grad_alpha, None, None


def pact(x: Tensor, alpha: Tensor, scale: Tensor, high: int) -> Tensor:
    """Clip x to [-alpha, alpha] and round it to 2 * high + 1 levels.

    The gradient to x passes where |x| < alpha, and to alpha, as sign(x), where |x| >= alpha.

    Args:
        x: any shape, float32.
        alpha: the clip, ().
        scale: alpha / high, ().
        high: the greatest integer.

    Source: Choi et al. 2018, arXiv 1805.06085, section 3.
    """
    quantized: Tensor = _Pact.apply(x, alpha, scale, high)
    return quantized
