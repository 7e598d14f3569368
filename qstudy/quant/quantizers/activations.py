"""Uniform quantizers of activations: equally spaced levels, one scale for the whole tensor."""

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from qstudy.quant.quantizers.base import TINY, ActivationQuantizer, bounds, finite_extremes
from qstudy.quant.quantizers.calibration import METHODS, Method, percentile_ends, qparams_of_range
from qstudy.quant.quantizers.histogram import Histogram
from qstudy.quant.quantizers.magnitude import Magnitude
from qstudy.quant.straight_through import fake_quantize, learned_offset, learned_step_size, whole_zero_point

NOTHING_SEEN = (-1.0, 1.0)
"""Range of what was zero all through calibration: at the scale of zeros what comes later would be clipped for good."""

ActivationRange = Literal["max", "ema", "percentile", "mse", "kl", "learned"]


class UniformActivations(ActivationQuantizer):
    """Equally spaced levels for one activation tensor, one scale for all of it.

    Ranges: `max`: the extremes of all batches; `ema`: a moving average of each batch's extremes; `percentile`, `mse`,
    `kl`: chosen once, from a histogram over the batches of calibration; `learned`: the scale (and the zero point) is
    trained from the mean squared error's choice on (LSQ, LSQ+).
    """

    extremes: Tensor
    seen: Tensor
    observed: Tensor
    zero_point: Tensor

    def __init__(
        self,
        bits: int,
        symmetric: bool = True,
        range: ActivationRange = "ema",
        momentum: float = 0.95,
        percentile: float = 99.99,
    ) -> None:
        """
        Args:
            bits: width of the integers.
            symmetric: around zero; else with a zero point, and all 2**bits levels.
            range: how its largest level is chosen.
            momentum: of the moving average.
            percentile: percent of the values that are not clipped, where that is the range.
        """
        super().__init__()
        self.bits = bits
        self.symmetric = symmetric
        self.range = range
        self.momentum = momentum if range == "ema" else None
        self.low, self.high = bounds(bits, narrow=symmetric)
        self.register_buffer("extremes", torch.zeros(2))  # least and greatest value seen
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))
        self.trained = range == "learned"
        self.method = _method(range, percentile)
        self.static_range = self.method is not None
        self.histogram = Histogram() if self.static_range else None
        self.follows_extremes = not self.static_range
        self.register_buffer("observed", torch.ones(()))  # the scale that follows what is seen
        self.learned = Magnitude() if self.trained else None
        if self.trained and not symmetric:
            self.register_parameter("zero_point", nn.Parameter(torch.zeros(())))
        else:
            self.register_buffer("zero_point", torch.zeros(()))

    @property
    def scale(self) -> Tensor:  # type: ignore[override]
        """() float32, above zero; with a gradient where it is trained."""
        return self.observed if self.learned is None else self.learned()

    @property
    def shifted(self) -> bool:
        return not self.symmetric and (self.trained or super().shifted)  # trained: never 0, see `qparams`

    def levels(self, shifted: bool) -> tuple[int, int]:
        return self.low if self.symmetric or shifted else -self.high, self.high

    def forward(self, x: Tensor) -> Tensor:
        """Fake-quantize x (any shape)."""
        if self.observer_enabled and self.training:
            self.observe(x)
        if not self.fake_quant_enabled:
            return x
        if self.trained:
            return self._learned(x.float())
        low = self.low if self.symmetric or self.zero_point else -self.high  # not yet calibrated
        return fake_quantize(x.float(), self.scale, None if self.symmetric else self.zero_point, low, self.high)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Move the range towards the extremes of x, and the scale with it; or count its values; if there are any.

        Raises:
            Diverged: x holds values that are not finite; the range stays as it was.
        """
        if not x.numel():
            return
        ends = finite_extremes(x, self.layer)
        if self.histogram is not None:
            self.histogram.add(x)
        else:
            self._follow(ends)
            self._fit(self.extremes)
        self.seen.fill_(True)

    @torch.no_grad()
    def compute_qparams(self) -> None:
        if self.method is not None and self.histogram is not None and self.seen:
            ends = self.method(self.histogram, self.low, self.high, self.symmetric)
            self.extremes.copy_(torch.tensor(ends if any(ends) else NOTHING_SEEN))
            self._fit(self.extremes)
        elif self.seen and not self.extremes.any():
            self._fit(self.extremes.new_tensor(NOTHING_SEEN))

    def qparams(self) -> Tensor:
        zero_point = whole_zero_point(self.zero_point) if self.trained and not self.symmetric else self.zero_point
        return torch.stack([self.scale.detach().clamp_min(TINY), zero_point]).float()

    def _follow(self, now: Tensor) -> None:
        if self.momentum is None:
            both = torch.stack([torch.minimum(self.extremes[0], now[0]), torch.maximum(self.extremes[1], now[1])])
        else:
            both = torch.lerp(now, self.extremes, self.momentum)
        self.extremes.copy_(both.where(self.seen, now))  # where: no GPU is asked whether it is the first time

    def _fit(self, ends: Tensor) -> None:
        scale, zero_point = qparams_of_range(ends[0], ends[1], self.low, self.high, self.symmetric)
        self.observed.copy_(scale)
        if self.learned is not None:
            self.learned.set(scale)
        self.zero_point.copy_(zero_point)

    def _learned(self, x: Tensor) -> Tensor:
        if self.symmetric:
            return learned_step_size(x, self.scale, self.low, self.high)
        return learned_offset(x, self.scale, self.zero_point, self.low, self.high)


def _method(range: ActivationRange, percentile: float) -> Method | None:
    if range == "percentile":
        return partial(percentile_ends, percent=percentile)
    return METHODS.get("mse" if range == "learned" else range)


class FixedActivations(UniformActivations):
    """A symmetric quantizer whose range is known: an LSTM's hidden state lies in (-1, 1); no value clips."""

    def __init__(self, bits: int, bound: float = 1.0) -> None:
        super().__init__(bits)
        self.observed.fill_(bound / self.high)

    def observe(self, x: Tensor) -> None:
        """Nothing to learn."""
