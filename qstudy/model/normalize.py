"""Feature normalization: the training set's mean and deviation, then a causal running mean of the utterance."""

from typing import Any

import torch
from torch import Tensor, nn

from qstudy.errors import UserError
from qstudy.quant.state import LARGEST

RunningMean = tuple[Tensor, Tensor]
"""Sum of the frames so far (B, D) float64, and their number (B,) float32."""


class Normalize(nn.Module):
    """Map log-mel frames to zero mean and unit deviation, then take away the running mean of the frames so far.

    The running mean only looks back, so streaming and whole-utterance agree. It starts from `prior` frames of the
    training set's mean, so that the first frames are not normalized by themselves alone.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, bins: int, prior: int) -> None:
        """Args: number of mel bins; prior frames, 0: no running mean."""
        super().__init__()
        self.prior = prior
        self.register_buffer("mean", torch.zeros(bins))
        self.register_buffer("deviation", torch.ones(bins))
        self.register_load_state_dict_post_hook(_require_usable)

    def fit(self, mean: Tensor, deviation: Tensor) -> None:
        """Set the training set's statistics, (bins,) float32 each."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)

    def forward(self, features: Tensor, state: RunningMean | None = None) -> tuple[Tensor, RunningMean | None]:
        """Normalize features (B, F, D) float32; returns the same shape and the state after the last frame."""
        x = (features - self.mean) / self.deviation
        if not self.prior:
            return x, None
        if state is None:
            zeros = x.new_zeros(len(x), x.shape[2], dtype=torch.float64)
            state = (zeros, x.new_full((len(x),), float(self.prior)))
        # Frame by frame in float64: the sum is the same to the bit however an utterance is cut into chunks.
        total = torch.cat([state[0].unsqueeze(1), x.double()], 1).cumsum(1)[:, 1:]
        count = state[1].unsqueeze(1) + torch.arange(1, x.shape[1] + 1, device=x.device)
        after = (total[:, -1], count[:, -1]) if x.shape[1] else state
        return x - total.float() / count.unsqueeze(2), after


def _require_usable(normalize: Any, _: Any) -> None:
    """Raise UserError if a loaded file would make features infinite."""
    mean, deviation = normalize.mean.abs(), normalize.deviation
    usable = (deviation > 0) & (deviation <= LARGEST) & ((mean + 1) / deviation <= LARGEST)  # of NaN, none is true
    if not usable.all():
        raise UserError(
            "a mean of the features is not finite or too large, or a deviation is not above 0; make the file again."
        )
