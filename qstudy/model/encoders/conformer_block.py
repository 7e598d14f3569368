"""Conformer blocks: feed-forward, attention, convolution, feed-forward."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.errors import UserError
from qstudy.fields import Dropout, Few, Frames, Units, check_fields
from qstudy.model.encoders.attention import BandAttention
from qstudy.model.encoders.conformer_program import ConformerProgram, conformer_program
from qstudy.model.encoders.conformer_state import BlockState
from qstudy.model.encoders.rates import after_end
from qstudy.quant.conv import Conv1d
from qstudy.quant.layers import Linear, Rate
from qstudy.quant.operators import LayerNorm


@dataclass(frozen=True)
class ConformerSettings:
    """The sizes of Conformer blocks, and how far they look."""

    size: Units = 144
    """D, size of a frame."""
    blocks: Few = 4
    """Number of blocks."""
    heads: Few = 4
    """Heads of attention; they share D."""
    expansion: Few = 4
    """Size inside a feed-forward module, in multiples of D."""
    kernel: Few = 15
    """Frames of the depthwise convolution."""
    left: Frames = 16
    """Frames of attention before each frame."""
    right: Frames = 0
    """Frames of attention after each frame; 0: it does not look ahead."""
    causal: bool = True
    """Whether convolutions look back only."""
    position: Literal["relative", "none"] = "relative"
    """Whether attention knows how far frames are apart."""
    conv_norm: Literal["layer", "batch"] = "layer"
    """Normalization after the depthwise convolution; `batch` is the paper's, over padded frames too while training."""
    dropout: Dropout = 0.0
    """Of what each module adds, and inside the feed-forward ones, while training."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.size % self.heads:
            raise UserError(f"heads: {self.heads} heads cannot share {self.size} units; take a divisor of them.")
        if not (self.causal or self.kernel % 2):
            raise UserError(f"kernel: {self.kernel} frames have no middle; take an odd number, or causal: true.")

    @property
    def streams(self) -> bool:
        """Whether no frame looks ahead."""
        return self.causal and not self.right

    def rate(self, every_ms: float) -> Rate:
        """Of layers over frames of so many milliseconds."""
        return Rate(every_ms=every_ms) if self.streams else after_end(every_ms)


class FeedForward(nn.Module):
    """Two affine maps with SiLU between."""

    def __init__(self, size: int, inner: int, dropout: float, rate: Rate) -> None:
        super().__init__()
        self.norm = LayerNorm(size, rate)
        self.expand = Linear(size, inner, rate=rate, then="silu")
        self.contract = Linear(inner, size, rate=rate, then="half_sum")
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        inner = F.dropout(F.silu(self.expand(self.norm(x))), self.dropout, self.training)
        y: Tensor = self.contract(inner)
        return y


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` over frames (B, T, D)."""

    def __init__(self, size: int, rate: Rate) -> None:
        super().__init__(size)
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


NORMS: dict[str, Callable[[int, Rate], nn.Module]] = {"layer": LayerNorm, "batch": BatchNorm}
"""`conv_norm` -> what makes it."""


class Convolution(nn.Module):
    """Gated affine map, depthwise convolution over time, affine map."""

    def __init__(self, settings: ConformerSettings, rate: Rate) -> None:
        super().__init__()
        size, kernel = settings.size, settings.kernel
        self.after = 0 if settings.causal else kernel // 2  # frames that it looks ahead
        self.before = kernel - 1 - self.after
        self.norm = LayerNorm(size, rate)
        self.expand = Linear(size, 2 * size, rate=rate, then="glu")
        self.depthwise = Conv1d(size, size, kernel, groups=size, rate=rate)
        self.conv_norm = NORMS[settings.conv_norm](size, rate)
        self.contract = Linear(size, size, rate=rate, then="sum")

    def forward(self, x: Tensor, padded: Tensor | None, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, T, D), padded frames (B, T) bool, the state: (B, T, D) and the state after the last frame."""
        x = F.glu(self.expand(self.norm(x)))
        if padded is not None:
            x = x.masked_fill(padded.unsqueeze(2), 0.0)
        x = x.transpose(1, 2)  # (B, D, T)
        if before is None:
            before = x.new_zeros(*x.shape[:2], self.before)
        x = torch.cat([before, x], 2)
        state = x[..., x.shape[2] - self.before :]
        y = self.depthwise(F.pad(x, (0, self.after)) if self.after else x)
        y = self.contract(F.silu(self.conv_norm(y.transpose(1, 2))))
        return y, state


class ConformerBlock(nn.Module):
    """One block (Gulati et al. 2020, arXiv 2005.08100)."""

    def __init__(self, settings: ConformerSettings, rate: Rate) -> None:
        super().__init__()
        size, inner, dropout = settings.size, settings.size * settings.expansion, settings.dropout
        self.first = FeedForward(size, inner, dropout, rate)
        self.norm = LayerNorm(size, rate)
        relative = settings.position == "relative"
        self.attention = BandAttention(size, settings.heads, settings.left, settings.right, relative, rate)
        self.convolution = Convolution(settings, rate)
        self.second = FeedForward(size, inner, dropout, rate)
        self.final_norm = LayerNorm(size, rate)
        self.dropout = dropout

    def forward(self, x: Tensor, padded: Tensor | None, state: BlockState | None) -> tuple[Tensor, BlockState]:
        """x (B, T, D), padded frames (B, T) bool: (B, T, D) and the state after the last frame."""
        x = x + 0.5 * self._dropped(self.first(x))
        attended, seen = self.attention(self.norm(x), padded, state and state.attention)
        x = x + self._dropped(attended)
        convolved, inputs = self.convolution(x, padded, None if state is None else state.inputs)
        x = x + self._dropped(convolved)
        x = x + 0.5 * self._dropped(self.second(x))
        return self.final_norm(x), BlockState(seen, inputs)

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class ConformerBlocks(nn.ModuleList):
    """Conformer blocks, one feeding the next."""

    def __init__(self, settings: ConformerSettings, rate: Rate) -> None:
        """Args: sizes; how often a frame comes."""
        super().__init__(ConformerBlock(settings, rate) for _ in range(settings.blocks))
        self.streams = settings.streams
        self.program: ConformerProgram | None = None

    def fuse(self) -> None:
        """Let packed blocks that stream run in one call."""
        self.program = conformer_program(self) if self.streams else None

    def forward(
        self, x: Tensor, lengths: Tensor, states: Sequence[BlockState] | None = None
    ) -> tuple[Tensor, Sequence[BlockState]]:
        """Run over x (B, T, D) float32 with valid lengths (B,) int64: (B, T, D) and the states after the last frame."""
        if self.program is not None and self.program.accepts(x):
            return self.program(x, states)
        padded = None if self.streams else padded_frames(x, lengths)  # what comes after an end changes nothing before
        after = []
        for index, block in enumerate(self):
            x, state = block(x, padded, states[index] if states else None)
            after.append(state)
        return x, after


def padded_frames(x: Tensor, lengths: Tensor) -> Tensor:
    """Which of the frames x (B, T, D) are after the ends, by their lengths (B,) int64: (B, T) bool."""
    return torch.arange(x.shape[1], device=x.device) >= lengths.unsqueeze(1)
