"""What all searches are to a recognizer: encoder frames in, in pieces or whole, hypotheses out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from qstudy.model import RNNT


@dataclass(frozen=True)
class Hypothesis:
    """What an utterance may have been."""

    labels: list[int]
    """Without blanks."""
    score: float | None = None
    """Natural logarithm of its probability, with language models and rewards; None: the search has no scores."""
    frames: list[int] | None = None
    """Encoder frame of every label; None: the search keeps none."""


class Decoder(ABC):
    """A search. What a stream carries from chunk to chunk is in its state, so that one decoder serves many."""

    @abstractmethod
    def accept(self, model: RNNT, encoded: Tensor, lengths: Tensor, state: Any = None) -> Any:
        """Search on through the next frames of a batch of utterances.

        Args:
            model: the transducer, in evaluation mode.
            encoded: encoder frames (B, T, .) float32.
            lengths: valid frames (B,) int64.
            state: what the previous chunk returned; None at the start.

        Returns:
            The state after the last frame.
        """

    @abstractmethod
    def labels(self, state: Any) -> list[list[int]]:
        """The best labels of every utterance so far."""

    @abstractmethod
    def finish(self, model: RNNT, state: Any) -> list[list[Hypothesis]]:
        """The utterances have ended: the hypotheses of each, best first, at least one."""

    def decode(self, model: RNNT, features: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """The hypotheses of whole utterances, best first; an empty one where one is shorter than an encoder frame.

        Args:
            model: the transducer, in evaluation mode.
            features: log-mel energies (B, F, D) float32.
            lengths: valid frames (B,) int64.
        """
        if features.shape[1] < model.encoder.chunk_frames:  # layers need not work on tensors without a frame
            return [[Hypothesis([])] for _ in features]
        encoded, lengths, _ = model.encoder(features, lengths)
        return self.finish(model, self.accept(model, encoded, lengths))

    def best(self, model: RNNT, features: Tensor, lengths: Tensor) -> list[list[int]]:
        """As `decode`: the labels of the best hypothesis alone."""
        return [found[0].labels for found in self.decode(model, features, lengths)]
