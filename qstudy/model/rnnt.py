"""The recurrent neural network transducer: encoder, predictor, joiner (Graves 2012, arXiv 1211.3711)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from qstudy.bits import LayerShape
from qstudy.model.encoder import LSTMEncoder
from qstudy.model.joiner import Joiner
from qstudy.model.predictor import LSTMPredictor, Predictor, StatelessPredictor
from qstudy.named import build
from qstudy.quant.state import layer_shapes
from qstudy.settings import ModelConfig

ENCODERS = {"lstm": LSTMEncoder}
PREDICTORS = {"lstm": LSTMPredictor, "stateless": StatelessPredictor}


class RNNT(nn.Module):
    """A transducer over log-mel features; label 0 is blank."""

    def __init__(self, config: ModelConfig, bins: int, hop_ms: float, labels: int) -> None:
        """
        Args:
            config: the parts.
            bins: D, mel bins per feature frame.
            hop_ms: milliseconds between feature frames.
            labels: V, labels with blank.

        Raises:
            UserError: an unknown part or option.
        """
        super().__init__()
        self.encoder: LSTMEncoder = build(config.encoder, ENCODERS, "model.encoder", bins, hop_ms, kind=nn.Module)
        self.predictor: Predictor = build(config.predictor, PREDICTORS, "model.predictor", labels, kind=nn.Module)
        joiner: Mapping[str, Any] = {"name": "joiner", **config.joiner}
        sizes = (self.encoder.output_size, self.predictor.output_size, labels, self.encoder.output_ms)
        self.joiner: Joiner = build(joiner, {"joiner": Joiner}, "model.joiner", *sizes, kind=nn.Module)

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
        return layer_shapes(self)
