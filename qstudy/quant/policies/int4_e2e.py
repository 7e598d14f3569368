"""`int4_e2e`: 4 bits from end to end, with a quantizer that suits each tensor."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from qstudy.bits import FLOAT, WIDTHS, BitMap, BitPatterns, LayerBits, LayerShape
from qstudy.errors import UserError
from qstudy.quant.arithmetics.native import Gradient
from qstudy.quant.layers import quantizable
from qstudy.quant.policies.base import Step
from qstudy.quant.policies.native_int import NativeInt
from qstudy.quant.quantizers import FixedActivations, UniformActivations, UniformWeights, WeightQuantizer
from qstudy.quant.quantizers.chosen import ChosenActivations, ChosenWeights
from qstudy.quant.quantizers.pact import PactActivations
from qstudy.quant.quantizers.sawb import COEFFICIENTS, FamilyWeights, SawbWeights

W4A4: BitPatterns = {"*": {"weight": 4, "activation": 4}}
Decay = Annotated[float, Ge(0), Le(1e6)]
WEIGHTS = ("max", "sawb", "family")
ACTIVATIONS = ("fixed", "max", "pact")


class Choice(NamedTuple):
    """What one tensor got."""

    quantizer: str
    errors: Mapping[str, float]
    """Candidate -> squared error in calibration, relative to the tensor's power; empty where nothing was compared."""


class Int4E2E(NativeInt):
    """Weights and activations of encoder, predictor and joiner at 4 bits, in real integers.

    Weights end at their largest magnitude (`max`), where two of their moments say (`sawb`) or where it is best for the
    one of SAWB's six distributions that suits them (`family`, ours), anew at every step, per tensor unless the map asks
    for channels. Inputs end at a known bound (`fixed`: 1, what follows a tanh), at the
    moving average of their extremes (`max`), or at a trained clip (`pact`). `auto` takes, per tensor, the one with
    the least squared error in calibration. The hidden state of an LSTM is known to lie in (-1, 1): `fixed`.

    Source: Fasoli et al. 2022, arXiv 2206.07882; SAWB: Choi et al. 2018, arXiv 1807.06964; PACT: Choi et al. 2018,
    arXiv 1805.06085.

    YAML:
        policy:
          name: int4_e2e
          layers: {"*": {weight: 4, activation: 4}}
          weight_quantizer: auto
          activation_quantizer: auto
          edges: 8
    """

    granularity = "tensor"

    def __init__(
        self,
        layers: BitPatterns | None = None,
        weight_quantizer: Literal["auto", "max", "sawb", "family"] = "auto",
        activation_quantizer: Literal["auto", "fixed", "max", "pact"] = "auto",
        edges: int | None = None,
        decay: Decay = 1e-4,
        freeze_step: Step | None = None,
        gradient: Gradient = "float32",
    ) -> None:
        """
        Args:
            layers: ordered glob patterns over layer names -> widths; None: 4 bits everywhere.
            weight_quantizer: `auto`, `max`, `sawb` or `family`.
            activation_quantizer: `auto`, `fixed`, `max` or `pact`.
            edges: bits of the first and of the last layer with inputs; None: as `layers` says.
            decay: factor of the penalty on PACT's squared clips.
            freeze_step: ranges of `max` stop moving at this step; None: never.
            gradient: type in which the backward pass multiplies: `float32`, or `bfloat16` where the device has it.

        Raises:
            UserError: a quantizer or width that does not exist.
        """
        super().__init__(W4A4 if layers is None else layers, 0, freeze_step, gradient)
        if edges is not None and edges not in WIDTHS:
            raise UserError(f"policy.edges: {edges!r} bits is not one of {', '.join(map(str, WIDTHS))}.")
        self.weight_quantizers = WEIGHTS if weight_quantizer == "auto" else (weight_quantizer,)
        self.activation_quantizers = ACTIVATIONS if activation_quantizer == "auto" else (activation_quantizer,)
        self.edges = edges
        self.decay = decay
        self.chosen: dict[str, Choice] = {}
        """Tensor (`layer.weights.0`, `layer.inputs`, `layer.hidden`) -> its quantizer; filled by `calibrate`."""

    def bit_map(self, shapes: Iterable[LayerShape]) -> BitMap:
        """Widths by layer, one scale per tensor by default; the edges' widths override those of `layers`."""
        shapes = list(shapes)
        bit_map = self.resolved(shapes)
        driven = [
            shape.name for shape in shapes if shape.matrices and shape.activations and bit_map[shape.name].quantized
        ]
        driven.sort(key=[shape.name for shape in shapes if shape.kind == "tied"].__contains__)  # it computes last
        if self.edges is not None:
            for name in {*driven[:1], *driven[-1:]}:
                bit_map[name] = replace(bit_map[name], weight=self.edges, activation=self.edges)
        for name, bits in bit_map.items():
            if "max" not in self.weight_quantizers and bits.weight not in (*COEFFICIENTS, FLOAT):
                raise UserError(f"layers: {name}: weight: SAWB has 2 to 8 bits, not {bits.weight}; use max, or auto.")
        return self.checked(bit_map, shapes)

    def weight_quantizer(self, matrix: Tensor, bits: LayerBits) -> ChosenWeights:
        names = self.weight_quantizers if bits.weight in COEFFICIENTS else ("max",)
        makers: dict[str, Callable[[], WeightQuantizer]] = {
            "max": lambda: UniformWeights(matrix, bits.weight, bits.granularity, "max"),
            "sawb": lambda: SawbWeights(bits.weight, bits.granularity),
            "family": lambda: FamilyWeights(bits.weight, bits.granularity),
        }
        return ChosenWeights({name: makers[name]() for name in names})

    def activation_quantizer(self, bits: LayerBits) -> ChosenActivations:
        makers = {"fixed": FixedActivations, "max": UniformActivations, "pact": PactActivations}
        return ChosenActivations({name: makers[name](bits.activation) for name in self.activation_quantizers})

    def calibrate(self, model: nn.Module, passes: Iterable[object]) -> None:
        super().calibrate(model, passes)
        self.chosen = chosen_quantizers(model)

    def notes(self) -> dict[str, Any]:
        """`choices`: tensor -> its quantizer and the candidates' errors."""
        found = {
            tensor: {"quantizer": one.quantizer, "errors": dict(one.errors)} for tensor, one in self.chosen.items()
        }
        return {"choices": found}

    def penalty(self, model: nn.Module, step: int) -> Tensor:
        """Decay of PACT's clips: a smaller clip is a finer scale (Choi et al. 2018, arXiv 1805.06085, section 3.2)."""
        clips: list[Tensor] = [quantizer.alpha for quantizer in _pact_in_use(model)]
        return self.decay * torch.stack(clips).square().sum() if clips else super().penalty(model, step)


def _pact_in_use(model: nn.Module) -> list[PactActivations]:
    chosen = (module.chosen for module in model.modules() if isinstance(module, ChosenActivations))
    return [quantizer for quantizer in chosen if isinstance(quantizer, PactActivations)]


def chosen_quantizers(model: nn.Module) -> dict[str, Choice]:
    """What every tensor of a calibrated model got: `layer.weights.0`, `layer.inputs`, `layer.hidden` -> `Choice`."""
    found: dict[str, Choice] = {}
    for name, layer in quantizable(model).items():
        for part, quantizer in layer.arithmetic.named_modules() if layer.arithmetic is not None else ():
            if isinstance(quantizer, ChosenWeights | ChosenActivations):
                found[f"{name}.{part}"] = Choice(quantizer.choice.name, quantizer.choice.table())
            elif part == "hidden" and isinstance(quantizer, FixedActivations):
                found[f"{name}.{part}"] = Choice("fixed", {})
    return found
