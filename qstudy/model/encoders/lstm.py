"""The LSTM encoder: log-mel frames in, joiner frames out."""

from collections.abc import Sequence

from torch import Tensor

from qstudy.fields import Count, Dropout, Few, Units
from qstudy.model.encoders.stacked import StackedEncoder
from qstudy.model.lstm import open_forget_gate
from qstudy.quant.arithmetic import LSTMState
from qstudy.quant.layers import LSTM, Rate
from qstudy.quant.stack import LSTMStack
from qstudy.settings import FeatureSettings


class LSTMEncoder(StackedEncoder):
    """Stack frames, run unidirectional LSTM layers, concatenate their outputs."""

    def __init__(
        self,
        features: FeatureSettings,
        hidden: Units = 256,
        layers: Few = 3,
        stack: Few = 3,
        reduction: Few = 3,
        running_mean: Count = 0,
        dropout: Dropout = 0.0,
    ) -> None:
        """
        Args:
            features: what the features are.
            hidden: H, size of each LSTM layer.
            layers: number of LSTM layers.
            stack: feature frames stacked into one LSTM frame.
            reduction: LSTM frames concatenated into one joiner frame.
            running_mean: prior frames of the causal per-utterance mean normalization; 0: none.
            dropout: of each layer's output, while training.
        """
        super().__init__(features, hidden, stack, reduction, running_mean)
        sizes = [features.bins * stack] + [hidden] * (layers - 1)
        rate = Rate(every_ms=features.hop_ms * stack)
        self.lstm = LSTMStack([open_forget_gate(LSTM(size, hidden, rate)) for size in sizes], dropout)

    def run(self, x: Tensor, states: Sequence[LSTMState] | None, lengths: Tensor) -> tuple[Tensor, Sequence[LSTMState]]:
        return self.lstm(x, states)
