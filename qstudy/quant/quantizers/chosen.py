"""Quantizers that stand for the best of several: calibration decides by the squared error."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from qstudy.errors import UserError
from qstudy.quant.quantizers.base import ActivationQuantizer, QuantizedMatrix, WeightQuantizer
from qstudy.quant.quantizers.pact import sample

PREFERENCE = 1.02
"""An earlier, simpler candidate is taken even if its error is so many times a later one's."""


class QuantizerChoice(nn.Module):
    """Which of several named quantizers is in use, and the error of each; both live in checkpoints."""

    index: Tensor
    errors: Tensor

    def __init__(self, names: list[str]) -> None:
        """Args: the candidates, the simplest first."""
        super().__init__()
        self.names = names
        self.register_buffer("index", torch.zeros((), dtype=torch.int64))
        self.register_buffer("errors", torch.full((len(names),), torch.nan))

    @property
    def name(self) -> str:
        """The candidate in use.

        Raises:
            UserError: a foreign checkpoint holds no candidate's number.
        """
        if not 0 <= (index := int(self.index)) < len(self.names):
            raise UserError(f"the choice {index} is not one of {', '.join(self.names)}; train again.")
        return self.names[index]

    def decide(self, errors: list[Tensor]) -> None:
        """Take the first candidate that is close to the best."""
        self.errors.copy_(torch.stack(errors))
        good = self.errors <= PREFERENCE * self.errors.amin()
        self.index.copy_(good.int().argmax())

    def table(self) -> dict[str, float]:
        """Candidate -> mean squared error relative to the mean square; not a number before calibration."""
        return dict(zip(self.names, self.errors.tolist(), strict=True))


def relative_error(quantized: Tensor, exact: Tensor) -> Tensor:
    """Mean squared error of a fake-quantized tensor relative to the exact one's mean square: () float32."""
    exact, unit = exact.detach(), exact.detach().abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    difference = ((quantized.detach() - exact) / unit).square().mean()
    return difference / (exact / unit).square().mean().clamp_min(torch.finfo(torch.float32).tiny)


class ChosenWeights(WeightQuantizer):
    """The weight quantizer among several that moves a matrix least."""

    def __init__(self, candidates: Mapping[str, WeightQuantizer]) -> None:
        """Args: quantizers of one width by name, the simplest first."""
        super().__init__()
        self.candidates = nn.ModuleDict(candidates)
        self.choice = QuantizerChoice(list(candidates))
        self.bits = next(iter(candidates.values())).bits

    @property
    def chosen(self) -> WeightQuantizer:
        """The quantizer in use."""
        return cast(WeightQuantizer, self.candidates[self.choice.name])

    def forward(self, weight: Tensor) -> Tensor:
        quantized: Tensor = self.chosen(weight)
        return quantized

    def quantize(self, weight: Tensor) -> QuantizedMatrix:
        return self.chosen.quantize(weight)

    @torch.no_grad()
    def calibrate(self, weight: Tensor) -> None:
        """Choose."""
        quantizers = cast(list[WeightQuantizer], list(self.candidates.values()))
        for quantizer in quantizers:
            quantizer.calibrate(weight)
        self.choice.decide([relative_error(quantizer(weight), weight) for quantizer in quantizers])


class ChosenActivations(ActivationQuantizer):
    """The activation quantizer among several that moves the batches of calibration least."""

    def __init__(self, candidates: Mapping[str, ActivationQuantizer]) -> None:
        """Args: quantizers of one width by name, the simplest first."""
        super().__init__()
        self.candidates = nn.ModuleDict(candidates)
        self.choice = QuantizerChoice(list(candidates))
        first = next(iter(candidates.values()))
        self.bits, self.low, self.high = first.bits, first.low, first.high
        self._seen: list[Tensor] | None = []  # None: chosen

    @property
    def chosen(self) -> ActivationQuantizer:
        """The quantizer in use."""
        return cast(ActivationQuantizer, self.candidates[self.choice.name])

    @property
    def scale(self) -> Tensor:  # type: ignore[override]
        """The chosen quantizer's, () float32."""
        return self.chosen.scale

    @property
    def zero_point(self) -> Tensor:  # type: ignore[override]
        """The chosen quantizer's zero point, () float32."""
        return self.chosen.zero_point

    @property
    def shifted(self) -> bool:
        return self.chosen.shifted

    def levels(self, shifted: bool) -> tuple[int, int]:
        return self.chosen.levels(shifted)

    @property
    def trained(self) -> bool:  # type: ignore[override]
        """Whether gradients move the chosen quantizer."""
        return self.chosen.trained

    @property
    def follows_extremes(self) -> bool:  # type: ignore[override]
        """Whether the chosen quantizer does; not while calibration decides."""
        return self._seen is None and self.chosen.follows_extremes

    def forward(self, x: Tensor) -> Tensor:
        """Fake-quantize x (any shape) by the chosen quantizer; while calibration decides, all candidates observe x."""
        if self._seen is None or not (self.observer_enabled and self.training):
            quantized: Tensor = self.chosen(x)  # its own observer runs, if enabled
            return quantized
        self.observe(x)
        return x

    def observe(self, x: Tensor) -> None:
        """Fit every candidate to x, and keep a part of it for `compute_qparams`; afterwards, fit the chosen one."""
        if self._seen is None:
            self.chosen.observe(x)
            return
        self._seen.append(sample(x))
        for quantizer in self._quantizers():
            quantizer.observe(x)

    @torch.no_grad()
    def compute_qparams(self) -> None:
        """Choose on what was seen."""
        if not self._seen:
            return
        seen, self._seen = torch.cat(self._seen), None
        errors = []
        for quantizer in self._quantizers():
            quantizer.compute_qparams()
            state, quantizer.fake_quant_enabled, quantizer.observer_enabled = (
                (quantizer.fake_quant_enabled, quantizer.observer_enabled),
                True,
                False,
            )
            errors.append(relative_error(quantizer(seen), seen))
            quantizer.fake_quant_enabled, quantizer.observer_enabled = state
        self.choice.decide(errors)

    def _quantizers(self) -> list[ActivationQuantizer]:
        return cast(list[ActivationQuantizer], list(self.candidates.values()))
