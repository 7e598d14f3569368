"""What a stream carries from chunk to chunk in Conformer blocks."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qstudy.model.encoders.attention import AttentionState


class BlockState(NamedTuple):
    """Of one block."""

    attention: AttentionState
    inputs: Tensor
    """Last inputs of the depthwise convolution, (B, D, kernel - 1)."""


class StreamStates(Sequence[BlockState]):
    """The states of all blocks in one tensor; taking it apart for every frame would cost more than using it."""

    def __init__(self, tensor: Tensor, seen: int, sizes: tuple[int, int, int, int]) -> None:
        """Args: (blocks, numbers of one) float32; frames in keys and values; D, heads, left, kernel."""
        self.tensor, self.seen, self.sizes = tensor, seen, sizes

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, block: Any) -> Any:
        size, heads, left, kernel = self.sizes
        rows = self.tensor[block].view(-1, size)
        keys, values = (
            rows[first : first + self.seen].view(1, self.seen, heads, -1).transpose(1, 2) for first in (0, left + 1)
        )
        return BlockState((keys, values), rows[2 * left + 2 :][: kernel - 1].t().unsqueeze(0))

    @classmethod
    def of(cls, states: Sequence[BlockState] | None, blocks: int, sizes: tuple[int, int, int, int]) -> "StreamStates":
        """A copy of any states of one stream; None: of its start.

        Raises:
            RuntimeError: they are those of other blocks.
        """
        size, _, left, kernel = sizes
        if isinstance(states, cls):
            if (len(states), states.sizes) != (blocks, sizes):
                raise RuntimeError(f"states of {len(states)} blocks of {states.sizes} do not fit {blocks} of {sizes}")
            return cls(states.tensor.clone(), states.seen, sizes)
        made = cls(torch.zeros(blocks, (2 * left + 2 + kernel) * size), 0, sizes)
        for rows, state in zip(made.tensor.view(blocks, -1, size), states or (), strict=False):
            made.seen = state.attention[0].shape[2]
            for first, kept in zip((0, left + 1), state.attention, strict=True):
                rows[first : first + made.seen] = kept[0].transpose(0, 1).flatten(1)
            rows[2 * left + 2 :][: kernel - 1] = state.inputs[0].t()
        return made
