"""The plug-in point of encoders."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from qstudy.model.encoders.branching import Branching
from qstudy.model.normalize import Normalize
from qstudy.settings import FeatureSettings


class Encoder(nn.Module, ABC):
    """Feature frames in, fewer and larger frames out: all that training, decoders, streams and packing ask of it.

    Your own derives from it, sets the attributes without a value, and defines `forward`. It may be made of our
    quantizable layers and of any of torch's; what is not quantizable is packed as it is. It is also built on torch's
    "meta" device, to be priced: its constructor may not read the values of tensors.
    """

    output_size: int
    """Size of an output frame."""
    output_ms: float
    """Milliseconds of audio per output frame."""
    chunk_frames: int
    """Feature frames that it needs for its first output frame; a stream feeds multiples of it, and leaves the rest."""
    streams = True
    """Whether chunks of an utterance, with the state between them, give what the whole gives; False: it wants the
    whole."""
    reduction = 1
    """Frames laid side by side in each output frame: the auxiliary CTC head looks at them one by one."""
    pass_weights: tuple[float, ...] = (1.0,)
    """Weight of the loss from each of `passes`."""
    training_only: tuple[str, ...] = ("dropout",)
    """Options that matter while training only: a model file can be the start of a run that has others."""
    normalize: Normalize
    """For `forward` to begin with: training sets its statistics, and hides features behind its mean."""

    def __init__(self, features: FeatureSettings, running_mean: int = 0) -> None:
        """Args: what the features are; prior frames of the causal per-utterance mean normalization, 0: none."""
        super().__init__()
        self.normalize = Normalize(features.bins, running_mean)

    @abstractmethod
    def forward(self, features: Tensor, lengths: Tensor, state: Any = None) -> tuple[Tensor, Tensor, Any]:
        """Encode a batch of utterances, or the next chunk of streams.

        Args:
            features: log-mel energies (B, F, D) float32, F >= `chunk_frames`.
            lengths: valid frames (B,) int64.
            state: what the previous chunk returned; None at the start.

        Returns:
            Output frames (B, T, output_size), their valid lengths (B,) int64, and the state after the last frame
            (None where there is none).
        """

    @property
    def first_pass(self) -> "Encoder | None":
        """An encoder that streams, whose frames can be decoded as well, and from which `refine` goes on; None: there is
        none."""
        return None

    def passes(self, features: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """All that can be decoded, in the order of `pass_weights`: frames (B, T, output_size) each; valid lengths."""
        encoded, lengths, _ = self(features, lengths)
        return [encoded], lengths

    def refine(self, encoded: Tensor, lengths: Tensor) -> Tensor:
        """From all frames (B, T, .) of `first_pass` to this encoder's, (B, T, output_size)."""
        raise NotImplementedError("this encoder has one pass")

    @property
    def branching(self) -> Branching | None:
        """What in it, or it itself, has layers that leave frames out; None: every layer runs on every frame."""
        return next((part for part in self.modules() if isinstance(part, Branching)), None)

    def taken(self, features: Tensor) -> dict[str, NDArray[np.bool_]]:
        """What `branching` runs on the frames of one utterance's features (F, D), by the names that its layers have in
        the common model: what `qstudy.hardware.backlog` takes; empty, where every layer runs on every frame."""
        for name, part in self.named_modules(prefix="encoder"):
            if isinstance(part, Branching):
                return {f"{name}.{layers}": frames for layers, frames in part.frames_taken(features).items()}
        return {}
