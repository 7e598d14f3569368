"""Packed causal Conformer blocks as a program: one compiled call for an utterance, or for a chunk of a stream."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.model.encoders.conformer_loops import conformer_blocks
from qstudy.model.encoders.conformer_state import BlockState, StreamStates
from qstudy.quant.integer.accumulator import QParams, recording
from qstudy.quant.layers import Quantizable
from qstudy.quant.operators import LayerNorm
from qstudy.quant.packed.arithmetics import PackedInteger, PackedProduct
from qstudy.quant.packed.program import PackedRows, Unfit, loops_accept, packed_as


class ConformerProgram:
    """Blocks of one size whose products are all in integers of at most 8 bits."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        """
        Raises:
            Unfit: a block has a layer that the loops do not run.
        """
        self.blocks: list[Any] = list(blocks)  # ConformerBlock
        attention, convolution = self.blocks[0].attention, self.blocks[0].convolution
        size, kernel = convolution.depthwise.out_channels, convolution.depthwise.kernel_size[0]
        inner, left = self.blocks[0].first.expand.out_features, attention.left
        self.sizes = (size, attention.heads, left, kernel)
        numbers = [len(self.blocks), size, inner, attention.heads, left, kernel, (2 * left + 2 + kernel) * size]
        self.alive: list[Any] = []
        for block in self.blocks:
            numbers += self._parts(block)
        self.plan = torch.tensor(numbers)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies make their own: the plan holds addresses."""
        return ConformerProgram, (self.blocks,)

    def accepts(self, x: Tensor) -> bool:
        """Whether it can run x (B, T, D): one utterance or a chunk of it, where nobody looks at accumulators.

        Whole utterances too, however long: so whole and in pieces they are the same to the bit.
        """
        frames = x.shape[1]
        return x.shape == (1, frames, self.sizes[0]) and frames > 0 and loops_accept(x) and not recording()

    def __call__(self, x: Tensor, states: Sequence[BlockState] | None) -> tuple[Tensor, StreamStates]:
        """What `ConformerBlocks.forward` gives."""
        y = x.detach().clone(memory_format=torch.contiguous_format)
        after = StreamStates.of(states, len(self.blocks), self.sizes)
        frames = x.shape[1]
        conformer_blocks(self.plan.data_ptr(), y.data_ptr(), after.tensor.data_ptr(), after.seen, frames)
        after.seen = min(after.seen + frames, self.sizes[2])
        return y, after

    def _parts(self, block: Any) -> list[int]:
        """A block's part of the plan: see `conformer_loops`."""
        attention, convolution = block.attention, block.convolution
        positions, depthwise = attention.position, convolution.depthwise
        if attention.softmax.arithmetic is not None:
            raise Unfit
        scores, mixture = (packed_as(layer, PackedProduct) for layer in (attention.scores, attention.mixture))
        table, filters = (packed_as(layer, PackedInteger) for layer in (positions, depthwise))
        known = [*scores.qparams, table.qparams[0], *mixture.qparams, filters.qparams[0]]
        return [
            *self._feed_forward(block.first),
            self._norm(block.norm),
            self._affine(attention.qkv),
            *self._grouped(positions, table, table.matrices[0].integers()),
            self._keep(torch.tensor([*_symmetric(known), attention.scale])),
            self._affine(attention.output),
            self._norm(convolution.norm),
            self._affine(convolution.expand),
            *self._grouped(depthwise, filters, filters.matrices[0].integers().t()),
            self._norm(convolution.conv_norm),
            self._affine(convolution.contract),
            *self._feed_forward(block.second),
            self._norm(block.final_norm),
        ]

    def _feed_forward(self, module: Any) -> list[int]:
        return [self._norm(module.norm), self._affine(module.expand), self._affine(module.contract)]

    def _norm(self, norm: Any) -> int:
        if not isinstance(norm, LayerNorm) or norm.arithmetic is not None:
            raise Unfit
        return self._keep(torch.cat([norm.weight, norm.bias, torch.tensor([norm.eps])]).detach())

    def _affine(self, layer: Quantizable) -> int:
        rows = packed_as(layer, PackedInteger).rows
        if not isinstance(rows, PackedRows):
            raise Unfit
        self.alive.append(rows)
        return rows.plan.data_ptr()

    def _grouped(self, layer: Any, packed: PackedInteger, weights: Tensor) -> list[int]:
        """Addresses of int8 weights, of what a unit of each sum stands for, and of biases."""
        if weights.dtype != torch.int8 or layer.bias is None:
            raise Unfit
        scale = (packed.qparams[0].scale * packed.matrices[0].scale).expand(layer.out_channels)
        padded = F.pad(weights.reshape(-1), (0, 3))  # read in words of four
        return [self._keep(each) for each in (padded, scale, layer.bias.detach())]

    def _keep(self, tensor: Tensor) -> int:
        self.alive.append(tensor.contiguous().clone())
        address: int = self.alive[-1].data_ptr()
        return address


def _symmetric(known: Sequence[QParams]) -> list[float]:
    if any(qparams.zero_point is not None or qparams.bits > 8 for qparams in known):
        raise Unfit
    return [float(each) for qparams in known for each in (qparams.scale, qparams.bounds()[1])]


def conformer_program(blocks: Iterable[nn.Module]) -> ConformerProgram | None:
    """The program of packed blocks; None where a layer is not what it runs."""
    try:
        return ConformerProgram(blocks)
    except Unfit:
        return None
