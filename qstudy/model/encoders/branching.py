"""What training, prices and records ask of layers that leave frames out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Branching(ABC):
    """An encoder, or a module anywhere within one, that derives from this is asked all of it."""

    @abstractmethod
    def before_quantization(self) -> None:
        """Before a policy fills the slots of a model to be trained: weights that training would make only later begin
        now, so that quantizers are fitted to them."""

    @abstractmethod
    def begin_step(self, progress: float) -> None:
        """Before each training step; progress: share of the run that is done."""

    @abstractmethod
    def penalty(self) -> Tensor | None:
        """What the last forward pass adds to the loss while training, () float32; None: nothing."""

    @abstractmethod
    def frames_taken(self, features: Tensor) -> dict[str, NDArray[np.bool_]]:
        """On which frames of one utterance's features (F, D) its layers run: patterns of them, (T,) each;
        `layers.0.full.*` and `layers.0.cheap.*`, where layers have branches."""

    @abstractmethod
    def update_rates(self) -> None:
        """Before the shapes of the layers are asked: where it depends on what was learned how often one runs."""

    @abstractmethod
    def usage(self) -> dict[str, Any] | None:
        """What was counted while evaluating since `reset_usage`, JSON-able; None: nothing was."""

    @abstractmethod
    def adopt_usage(self, usage: Mapping[str, Any]) -> None:
        """Let layers run, for `update_rates`, as often as `usage` counted."""

    @abstractmethod
    def reset_usage(self) -> None:
        """Begin to count."""
