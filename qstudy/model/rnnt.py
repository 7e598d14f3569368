"""The recurrent neural network transducer: encoder, predictor, joiner (Graves 2012, arXiv 1211.3711)."""

from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn

from qstudy.bits import LayerShape
from qstudy.model.encoders import ENCODERS, Encoder
from qstudy.model.joiners import JOINERS, Joiner
from qstudy.model.predictors import PREDICTORS, Predictor
from qstudy.named import build
from qstudy.quant.layers import UNKNOWN, Rate
from qstudy.quant.state import layer_shapes
from qstudy.settings import FeatureSettings, ModelConfig


class RNNT(nn.Module):
    """A transducer over log-mel features; label 0 is blank."""

    def __init__(self, config: ModelConfig, features: FeatureSettings, labels: int) -> None:
        """
        Args:
            config: the parts.
            features: what the model hears.
            labels: V, labels with blank.

        Raises:
            UserError: an unknown part or option, or a tied table of another size than the joiner's.
        """
        super().__init__()
        self.encoder: Encoder = build(config.encoder, ENCODERS, "model.encoder", features, kind=Encoder)
        self.predictor: Predictor = build(config.predictor, PREDICTORS, "model.predictor", labels, kind=Predictor)
        sizes = (self.encoder.output_size, self.predictor.output_size, labels, self.encoder.output_ms)
        joiner = {"name": "additive", **config.joiner}
        self.joiner: Joiner = build(joiner, JOINERS, "model.joiner", *sizes, kind=Joiner)
        if (table := self.predictor.tied_table()) is not None:
            self.joiner.tie(table)

    def forward(self, features: Tensor, feature_lengths: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score every alignment.

        Args:
            features: log-mel energies (B, F, D) float32.
            feature_lengths: valid frames (B,) int64.
            targets: labels (B, U) int64, padded with anything valid.

        Returns:
            Logits (B, T, U + 1, V), valid encoder frames (B,) int64, encoder frames (B, T, .).
        """
        encoded, lengths, _ = self.encoder(features, feature_lengths)
        return self.joiner(encoded, self.predictor(targets)), lengths, encoded

    def shapes(self) -> list[LayerShape]:
        """What size and speed depend on, layer by layer, in the model's order; constants included."""
        if branching := self.encoder.branching:
            branching.update_rates()
        frame = Rate(every_ms=self.encoder.output_ms)
        rates = {"encoder": frame, "predictor": Rate(per_label=1), "joiner": frame._replace(per_label=1)}

        def rate(name: str) -> Rate:
            """Of what is in no layer; the first step, normalization, is too little to be priced."""
            return UNKNOWN if name == "encoder.normalize" else rates[name.partition(".")[0]]

        return [self._after_encoder(shape) for shape in layer_shapes(self, rate)]

    def _after_encoder(self, shape: LayerShape) -> LayerShape:
        """An encoder that wants the whole utterance lets predictor and joiner wait, too; they have decoded its first
        pass by then."""
        waits = not self.encoder.streams and not shape.name.startswith("encoder.")
        return replace(shape, after_end=True, twice=self.encoder.first_pass is not None) if waits else shape

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return next(chain(self.parameters(), self.buffers())).device
