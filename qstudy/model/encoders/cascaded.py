"""The cascaded encoder: a first pass that streams, and a second over its frames that hears the whole utterance."""

from typing import Any

from torch import Tensor, nn

from qstudy.errors import UserError
from qstudy.fields import Share, fill
from qstudy.model.encoders.base import Encoder
from qstudy.model.encoders.conformer_block import ConformerBlocks, ConformerSettings
from qstudy.model.encoders.one_pass import ONE_PASS
from qstudy.model.encoders.rates import after_end
from qstudy.named import build
from qstudy.quant.layers import Linear, Rate
from qstudy.settings import FeatureSettings


class CascadedEncoder(Encoder):
    """Any encoder that streams, then Conformer blocks that look ahead; one predictor and joiner decode from either.

    Layers begin with `encoder.first.` and `encoder.second.`, so that patterns give each pass its own widths.

    Source: Narayanan et al. 2021, arXiv 2010.14606; quantized by Ding et al. 2022, arXiv 2203.15952.
    """

    streams = False
    training_only = (*Encoder.training_only, "first_weight")

    def __init__(
        self,
        features: FeatureSettings,
        first: dict[str, Any],
        second: dict[str, Any],
        first_weight: Share = 0.5,
    ) -> None:
        """
        Args:
            features: what the features are.
            first: the first pass, `{name: ..., **options}`.
            second: sizes of the Conformer blocks of the second (`ConformerSettings`), by default as wide as the first's
                frames and seeing 16 of them on either side.
            first_weight: of the first pass in the loss; the second has the rest.

        Raises:
            UserError: an unknown part or option, sizes that do not fit, or a first pass that does not stream.
        """
        super().__init__(features)
        self.first: Encoder = build(first, ONE_PASS, "model.encoder.first", features, kind=Encoder)
        if not self.first.streams:
            raise UserError(
                f"model.encoder.first: {first['name']!r} does not stream as it is configured; take another."
            )
        self.normalize = self.first.normalize
        self.chunk_frames, self.reduction = self.first.chunk_frames, self.first.reduction
        self.output_size, self.output_ms = self.first.output_size, self.first.output_ms
        self.pass_weights = (first_weight, 1.0 - first_weight)
        defaults = {"size": self.output_size, "right": 16, "causal": False}
        settings = fill(ConformerSettings, {**defaults, **second}, "model.encoder.second")
        self.second = SecondPass(settings, self.output_size, after_end(self.output_ms))

    @property
    def first_pass(self) -> Encoder:
        return self.first

    def forward(self, features: Tensor, lengths: Tensor, state: Any = None) -> tuple[Tensor, Tensor, None]:
        encoded, lengths, _ = self.first(features, lengths)
        return self.second(encoded, lengths), lengths, None

    def passes(self, features: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        encoded, lengths, _ = self.first(features, lengths)
        return [encoded, self.second(encoded, lengths)], lengths

    def refine(self, encoded: Tensor, lengths: Tensor) -> Tensor:
        refined: Tensor = self.second(encoded, lengths)
        return refined


class SecondPass(nn.Module):
    """Conformer blocks over the first pass's frames, between affine maps where these have another size."""

    def __init__(self, settings: ConformerSettings, size: int, rate: Rate) -> None:
        """Args: sizes of the blocks; size of a frame of the first pass; how often they come."""
        super().__init__()
        same = settings.size == size
        self.input = nn.Identity() if same else Linear(size, settings.size, rate=rate)
        self.blocks = ConformerBlocks(settings, rate)
        self.output = nn.Identity() if same else Linear(settings.size, size, rate=rate)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Frames (B, T, size) with valid lengths (B,) int64: (B, T, size)."""
        y: Tensor = self.output(self.blocks(self.input(x), lengths)[0])
        return y
