"""Self-attention over a band of frames, made of quantizable layers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.quant.arithmetic import TrainingArithmetic
from qstudy.quant.conv import Conv1d
from qstudy.quant.integer.accumulator import recording
from qstudy.quant.layers import Linear, Rate
from qstudy.quant.operators import MatMul, Softmax

BLOCK = 1024
"""Frames whose scores by key are made at a time: those of all would be the square of their number."""

AttentionState = tuple[Tensor, Tensor]
"""Keys and values of the last frames, (B, heads, at most `left`, D / heads) each."""


class BandAttention(nn.Module):
    """Every frame looks at itself, `left` frames before it and `right` after it: S = left + right + 1 in all.

    Scores are kept by distance, (T, S), not by key, (T, T): so the same numbers are added in the same order however an
    utterance is cut into chunks, and what a packed model quantizes is the same.

    Relative positions: each head's queries times its own learnt table of relative keys, one for each distance (Shaw et
    al. 2018, arXiv 1803.02155), which is a grouped 1x1 convolution. In the form of Transformer-XL (Dai et al. 2019,
    arXiv 1901.02860), (q + u) k + (q + v) r, the queries' bias is u, and the convolution's bias is v r.

    Source: Vaswani et al. 2017, arXiv 1706.03762.
    """

    def __init__(self, size: int, heads: int, left: int, right: int, relative: bool, rate: Rate) -> None:
        """
        Args:
            size: D, a multiple of `heads`.
            heads: number of heads.
            left: frames that are seen before each.
            right: frames that are seen after each.
            relative: with relative positions; False: with none, the order of frames is left to convolutions.
            rate: how often a frame comes.
        """
        super().__init__()
        self.heads, self.left, self.right = heads, left, right
        self.scale = (size // heads) ** -0.5
        distances = left + right + 1
        seen = distances if rate.frames == 1 else min(distances, rate.frames)
        self.qkv = Linear(size, 3 * size, rate=rate)
        self.position = Conv1d(size, heads * distances, 1, groups=heads, rate=rate) if relative else None
        self.scores = MatMul(size // heads, seen * heads, rate=rate, heads=heads)
        self.softmax = Softmax(seen * heads, rate)
        self.mixture = MatMul(seen, size, unit=True, rate=rate, heads=heads)
        self.output = Linear(size, size, rate=rate, then="sum")

    def forward(
        self, x: Tensor, padded: Tensor | None = None, state: AttentionState | None = None
    ) -> tuple[Tensor, AttentionState]:
        """Mix the frames that each frame sees.

        Args:
            x: frames (B, T, D) float32.
            padded: frames after the ends of shorter utterances, which no other frame may see, (B, T) bool; None: none.
            state: of the frames before; None at the start, and where frames are padded.

        Returns:
            Frames (B, T, D) and the state after the last.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, T, D / heads)
        if state is not None:
            k, v = torch.cat([state[0], k], 2), torch.cat([state[1], v], 2)
        left, right = self._band(k.shape[2], padded is not None)
        if q.shape[2] > BLOCK and not self._observes and not recording():
            mixed = self._by_blocks(q * self.scale, k, v, padded, left, right)
        else:
            hidden = None if padded is None else hidden_keys(padded, slice(None), slice(None))
            mixed = self._attend(q * self.scale, k, v, hidden, left, right)
        y = self.output(mixed.transpose(1, 2).flatten(2))
        first = max(k.shape[2] - self.left, 0)
        return y, (k[:, :, first:], v[:, :, first:])

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None, left: int, right: int) -> Tensor:
        """What queries (B, heads, T, D / heads) see of keys and values, the last of which are the last query's own; not
        of those that are hidden, (B, 1, T, keys) bool."""
        scores = self.scores(q, k.transpose(-1, -2))  # (B, heads, T, keys)
        if hidden is not None:
            scores = scores.masked_fill(hidden, -torch.inf)
        scores = by_distance(scores, left, right)
        if self.position is not None:
            scores = scores + self._positions(q)[..., self.left - left : self.left + right + 1]
        seen = by_key(self.softmax(scores), left, right, k.shape[2])
        mixed: Tensor = self.mixture(seen, v)
        return mixed

    def _by_blocks(self, q: Tensor, k: Tensor, v: Tensor, padded: Tensor | None, left: int, right: int) -> Tensor:
        """As `_attend`, each block of queries with the keys of its band: memory grows with T, not with its square."""
        frames, before = q.shape[2], k.shape[2] - q.shape[2]
        parts = []
        for begin in range(0, frames, BLOCK):
            end = min(begin + BLOCK, frames)
            last = min(end + right, frames)  # the last key must be a query's own; what that sees is not used
            queries, keys = slice(begin, last), slice(max(begin + before - left, 0), last + before)
            hidden = None if padded is None else hidden_keys(padded, queries, keys)
            part = self._attend(q[:, :, queries], k[:, :, keys], v[:, :, keys], hidden, left, right)
            parts.append(part[:, :, : end - begin])
        return torch.cat(parts, 2)

    @property
    def _observes(self) -> bool:
        """Whether anything trains, or has quantizers that watch: these see all values of an utterance at once."""
        operators = (self.scores, self.softmax, self.mixture, *([self.position] if self.position is not None else []))
        slots = [each.arithmetic for each in operators]
        return self.training or any(isinstance(slot, TrainingArithmetic) and slot.training for slot in slots)

    def _band(self, keys: int, padded: bool) -> tuple[int, int]:
        """Frames to the left and right that can be there in a whole utterance, which knows its padding or looks ahead;
        a stream's band is always whole, so that sums stay the same."""
        whole = padded or self.right > 0
        return (min(self.left, keys - 1), min(self.right, keys - 1)) if whole else (self.left, 0)

    def _positions(self, q: Tensor) -> Tensor:
        """Queries (B, heads, T, D / heads) times their relative keys: (B, heads, T, S)."""
        assert self.position is not None
        scores: Tensor = self.position(q.transpose(-1, -2).flatten(1, 2))
        return scores.unflatten(1, (self.heads, -1)).transpose(-1, -2)


def hidden_keys(padded: Tensor, queries: slice, keys: slice) -> Tensor:
    """Padded frames (B, T) bool among some keys, for each of some queries: (B, 1, queries, keys) bool.

    A query may see itself: a row without any key has no softmax.
    """
    frames = torch.arange(padded.shape[1], device=padded.device)
    return padded[:, None, None, keys] & (frames[queries, None] != frames[keys])


def by_distance(scores: Tensor, left: int, right: int) -> Tensor:
    """Scores by key, (..., T, keys), the last key being the last query's own, to scores by distance, (..., T, S).

    Entry s of frame t is that of the key s - left frames after it; minus infinity where there is none.
    """
    frames, keys = scores.shape[-2:]
    if (frames, keys) == (1, left + 1) and not right:
        return scores
    width = left + frames + right
    rows = F.pad(scores, (width - right - keys, right), value=-torch.inf)  # row t begins at its key t - left
    flat = F.pad(rows.flatten(-2), (0, frames), value=-torch.inf)  # in rows of one more, each begins one later
    return flat.unflatten(-1, (frames, width + 1))[..., : left + right + 1]


def by_key(values: Tensor, left: int, right: int, keys: int) -> Tensor:
    """Values by distance, (..., T, S), back to values by key, (..., T, keys); 0 outside of the band.

    The skewing of Huang et al. 2018, arXiv 1809.04281, and the inverse of `by_distance`.
    """
    frames = values.shape[-2]
    if (frames, keys) == (1, left + 1) and not right:
        return values
    width = left + frames + right
    flat = F.pad(values, (0, frames)).flatten(-2)[..., : frames * width]
    first = left + frames - keys
    return flat.unflatten(-1, (frames, width))[..., first : first + keys]
