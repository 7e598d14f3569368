"""The Conformer encoder: log-mel frames in, joiner frames out."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from qstudy.fields import Count, Dropout, Few, Frames, Units
from qstudy.model.encoders.conformer_block import BlockState, ConformerBlocks, ConformerSettings
from qstudy.model.encoders.stacked import StackedEncoder
from qstudy.quant.layers import Linear, Rate
from qstudy.settings import FeatureSettings


class ConformerEncoder(StackedEncoder):
    """Stack frames, project them to D, run Conformer blocks, concatenate their outputs.

    It streams if it does not look ahead: `right` 0 and `causal`.

    Source: Gulati et al. 2020, arXiv 2005.08100; causal with limited left context as in Ding et al. 2022,
    arXiv 2203.15952.
    """

    def __init__(
        self,
        features: FeatureSettings,
        size: Units = 144,
        blocks: Few = 4,
        heads: Few = 4,
        expansion: Few = 4,
        kernel: Few = 15,
        left: Frames = 16,
        right: Frames = 0,
        causal: bool = True,
        position: Literal["relative", "none"] = "relative",
        conv_norm: Literal["layer", "batch"] = "layer",
        stack: Few = 4,
        reduction: Few = 2,
        running_mean: Count = 0,
        dropout: Dropout = 0.0,
    ) -> None:
        """
        Args:
            features: what the features are.
            size: D, size of a frame between blocks.
            blocks: number of blocks.
            heads: heads of attention; they share D.
            expansion: size inside a feed-forward module, in multiples of D.
            kernel: frames of the depthwise convolution.
            left: frames of attention before each frame.
            right: frames of attention after each frame.
            causal: whether convolutions look back only.
            position: whether attention knows how far frames are apart.
            conv_norm: normalization after the depthwise convolution.
            stack: feature frames stacked into one frame.
            reduction: frames concatenated into one joiner frame.
            running_mean: prior frames of the causal per-utterance mean normalization; 0: none.
            dropout: of what each module adds, while training.

        Raises:
            UserError: heads that cannot share D, or a convolution without a middle.
        """
        super().__init__(features, size, stack, reduction, running_mean)
        settings = ConformerSettings(
            size, blocks, heads, expansion, kernel, left, right, causal, position, conv_norm, dropout
        )
        self.dropout, self.streams = dropout, settings.streams
        every_ms = features.hop_ms * stack
        self.input = Linear(features.bins * stack, size, rate=Rate(every_ms=every_ms))
        self.blocks = ConformerBlocks(settings, settings.rate(every_ms))

    def run(
        self, x: Tensor, states: Sequence[BlockState] | None, lengths: Tensor
    ) -> tuple[Tensor, Sequence[BlockState]]:
        x = F.dropout(self.input(x), self.dropout, self.training)
        return self.blocks(x, lengths // self.reduction * self.reduction, states)
