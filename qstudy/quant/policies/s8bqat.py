"""`s8bqat`: codebooks of 2 to 7 bits for hardware of 8 bits; weights are drawn to their centroids while training."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from qstudy.bits import BitMap, BitPatterns, LayerBits, LayerShape
from qstudy.fields import Share
from qstudy.quant.arithmetics.fake import FakeArithmetic
from qstudy.quant.layers import quantizable
from qstudy.quant.policies.base import NO_GROUPS, QuantPolicy, Step
from qstudy.quant.quantizers import ActivationQuantizer, WeightQuantizer
from qstudy.quant.quantizers.codebook import CODEBOOK_WIDTHS, CodebookWeights, Levels
from qstudy.quant.quantizers.mracos import mracos, steepness

TYPICAL_STEPS = 300  # of a fine-tune, where nobody says how long it is


class SoftArithmetic(FakeArithmetic):
    """Fake arithmetic whose weights with a codebook stay in float until `weight_fake_quant_enabled`; evaluation
    quantizes them."""

    weight_fake_quant_enabled = False

    def _weight(self, index: int, weight: Tensor) -> Tensor:
        drawn = isinstance(self.weights[index], CodebookWeights)  # by the penalty, which knows of no others
        in_float = drawn and self.training and not self.weight_fake_quant_enabled
        return weight if in_float else super()._weight(index, weight)


Strength = Annotated[float, Ge(0), Le(1e6)]


class Recipe(NamedTuple):
    """When weights become centroids, in shares of the run."""

    quantize_from: float
    compress_every: float


RECIPES = {"ours": Recipe(quantize_from=0.0, compress_every=0.0), "paper": Recipe(1.0, 0.2)}


class S8BQAT(QuantPolicy):
    """Lloyd-Max codebooks from the float baseline, the MRACos penalty, and the hard compressor.

    Source: Zhen et al. 2022, arXiv 2206.15408. The paper's constants are not known here; those below are ours.

    Every matrix of 2 to 7 bits has one table of 2**bits int8 entries and one scale; at 8 bits a table would only
    repeat int8, so 8 and 16 bits are uniform, with a scale per row or matrix, as asked for, and straight through.
    Activations are uniform, in the width asked for; the paper's accelerator has 8 bits.

    Two recipes. `paper`: the forward pass computes with float weights, which the penalty, annealed upwards, draws to
    their centroids (a pseudo compressor), and every fifth of the run the hard compressor replaces them by their
    centroids in place; the optimizer's moments stay. `ours`, the default, is not the paper's: every step computes with
    the centroids, straight through, while the float weights stay; the penalty is the same.

    The paper's asks for a long training: between two compressions a weight must be able to travel half the way to the
    next centroid, or it is put back to where it was. Adam moves it by about the learning rate a step. In a fine-tune of
    250 steps of 1e-3 on digits it ended at 7.2 % WER at 2 bits, no better than without training (6.5 %); ours at 0.4 %.

    An ablation is one option each: no penalty is `strength: 0`, no compressor `compress_every: 0`, equal distances
    `levels: uniform`, the forward pass instead of in place `quantize_from: 0`.

    YAML: `policy: {name: s8bqat, layers: {"*": {weight: 4, activation: 8}}, recipe: paper}`
    """

    switchable = False
    refuses = (NO_GROUPS,)  # asked after codebooks, which have one scale, took their place

    def __init__(
        self,
        layers: BitPatterns,
        recipe: Literal["ours", "paper"] = "ours",
        levels: Levels = "lloyd_max",
        strength: Strength = 0.3,
        full_strength: Share = 0.5,
        quantize_from: Share | None = None,
        compress_every: Share | None = None,
        activation_start: Step = 0,
        freeze_step: Step | None = None,
    ) -> None:
        """
        Args:
            layers: ordered glob patterns over layer names -> widths.
            recipe: `ours` or `paper`; it says what the shares below are where they are left out.
            levels: of the codebooks: `lloyd_max`, or `uniform`, equally far apart up to the clip with the least error.
            strength: the penalty's final lambda, given as the norm of the gradient that it brings to weights spread
                evenly between their centroids; so it suits models of any size. (`lambda` itself multiplies a mean over
                all weights, whose gradient shrinks as they grow in number.)
            full_strength: share of the run after which lambda is there, on a straight line from zero.
            quantize_from: share of the run after which the forward pass computes with the centroids; 1: never.
            compress_every: share of the run between hard compressions in place, until `quantize_from`; 0: none.
            activation_start: activations stay in float, only observed, before this step.
            freeze_step: activation ranges stop moving at this step; None: never.

        Raises:
            UserError: a share outside 0 to 1, or a negative strength.
        """
        super().__init__(layers, activation_start, freeze_step)
        chosen = RECIPES[recipe]
        self.levels: Levels = levels
        self.strength = strength
        self.full_strength = full_strength
        self.quantize_from = chosen.quantize_from if quantize_from is None else quantize_from
        self.compress_every = chosen.compress_every if compress_every is None else compress_every

    def resolved(self, shapes: Sequence[LayerShape]) -> BitMap:
        return {name: _quantized(bits) for name, bits in super().resolved(shapes).items()}

    def weight_quantizer(self, matrix: Tensor, bits: LayerBits) -> WeightQuantizer:
        if bits.quantizer == "codebook":
            return CodebookWeights(matrix, bits.weight, self.levels)
        return super().weight_quantizer(matrix, bits)

    def assemble(
        self, bits: LayerBits, weights: Sequence[WeightQuantizer | None], *activations: ActivationQuantizer
    ) -> SoftArithmetic:
        return SoftArithmetic(weights, *activations)

    def penalty(self, model: nn.Module, step: int) -> Tensor:
        """lambda * mean r(w) over all weights with a codebook."""
        pairs = list(codebooks(model))
        annealed = self.strength * min(step / max(self.full_strength * self._steps, 1), 1)
        if not pairs or not annealed:
            return super().penalty(model, step)
        total = torch.stack([mracos(matrix, quantizer.table, quantizer.scale) for matrix, quantizer in pairs]).sum()
        squares = torch.stack([matrix.numel() * steepness(quantizer.levels) ** 2 for matrix, quantizer in pairs])
        return annealed / squares.sum().sqrt() * total  # lambda / count is what brings `annealed` as gradient

    def project_(self, model: nn.Module, step: int) -> None:
        super().project_(model, step)
        weight_fake_quant_enabled = step >= self.quantize_from * self._steps and self.quantize_from < 1
        for layer in quantizable(model).values():
            if isinstance(layer.arithmetic, SoftArithmetic):
                layer.arithmetic.weight_fake_quant_enabled = weight_fake_quant_enabled
        every = round(self.compress_every * self._steps)
        if every and step and step % every == 0 and not weight_fake_quant_enabled:
            compress_(model)

    @property
    def _steps(self) -> int:
        return self.total_steps or TYPICAL_STEPS


def codebooks(model: nn.Module) -> Iterator[tuple[Tensor, CodebookWeights]]:
    """All weight matrices that have a codebook, with it."""
    for layer in quantizable(model).values():
        if isinstance(layer.arithmetic, SoftArithmetic):
            for matrix, quantizer in zip(layer.matrices(), layer.arithmetic.weights, strict=True):
                if isinstance(quantizer, CodebookWeights):
                    yield matrix, quantizer


@torch.no_grad()
def compress_(model: nn.Module) -> None:
    """The hard compressor: replace every weight that has a codebook by its nearest centroid."""
    for matrix, quantizer in codebooks(model):
        matrix.copy_(quantizer(matrix))


def _quantized(bits: LayerBits) -> LayerBits:
    """What the widths mean under this policy."""
    if bits.weight in CODEBOOK_WIDTHS:
        return replace(bits, quantizer="codebook", granularity="tensor")
    return replace(bits, quantizer="uniform")
