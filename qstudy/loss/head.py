"""The transducer's head: joiner, log-softmax and RNN-T loss in one, without the logits of all nodes."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from qstudy.loss.head_compiled import CompiledTiles
from qstudy.loss.head_portable import PortableTiles
from qstudy.loss.rnnt import blank_place, check_values, refuse_graph
from qstudy.loss.tiles import Sides, Tiles, Utterances
from qstudy.quant.arithmetic import Affine
from qstudy.quant.kernels import usable
from qstudy.threads import callers, in_shares


class Limits(NamedTuple):
    """How much is computed at once; bytes as float32."""

    tile: int
    """Hidden values and logits of the nodes that go through the output layer together."""
    group: int
    """Logits of the utterances that are finished before the next begin."""
    kept: int
    """Logits, and as much again of joined rows, that are kept for the gradient by all threads together; the others are
    computed again."""


LIMITS = {"cpu": Limits(2**20, 2**22, 2**25)}
"""A tile stays in a core's second-level cache, a group in the third."""
LIMITS_ELSEWHERE = Limits(2**26, 2**28, 2**30)
"""Enough for a GPU to be busy."""
LEAST_ROWS = 64
"""Of a tile, however many labels there are: a product with fewer waits for its weights."""


def head_loss(
    encoded: Tensor,
    predicted: Tensor,
    multiplied: bool,
    output: Affine,
    targets: Tensor,
    frames: Tensor,
    labels: Tensor,
    blank: int = -1,
) -> Tensor:
    """`rnnt_loss` of `output` of the tanh of encoded plus, or times, predicted, at every frame and label.

    Of the logits (B, T, U+1, V) the loss needs two numbers per node, and the loss of an utterance knows no other's. So
    few utterances at a time are joined, scored and summed up, tile by tile, and at once differentiated: the mean's
    gradient is known before anyone asks for it, up to a factor. Nothing is computed for the padding; and no gradient
    where hardly an alignment passes: all that is left out of a frame's or a label's has less probability than one
    rounding of its dtype.

    Sources: log-softmax and loss in one: Li et al. 2019, arXiv 1909.12415; one utterance after the other, no padding:
    Braun et al. 2022, arXiv 2211.16270; few nodes matter: Kuang et al. 2022, arXiv 2206.13236 (there guessed before;
    here known exactly before the gradient); the gradient with the loss: Hsu et al. 2024, arXiv 2410.10989; tiles and
    recomputation, as for what exceeds `Limits.kept`: Flash RNN-T loss, Ashraf 2026, github.com/NVIDIA-NeMo/Speech,
    pull request 16040.

    Args:
        encoded: projected encoder frames (B, T, J) float.
        predicted: projected predictor vectors (B, U+1, J) float.
        multiplied: whether the two are multiplied, not added.
        output: the layer that follows; in float it multiplies in autocast's dtype.
        targets: labels (B, U) int64.
        frames: of each utterance (B,) int64, from 1 to T.
        labels: of each utterance (B,) int64, from 0 to U.
        blank: the blank's place in V; negative counts from the end.

    Returns:
        The mean over utterances, () float32; float64 for float64 sides.

    Raises:
        ValueError: a length or target does not fit.
    """
    size, dtype = len(output.weight), torch.float64 if encoded.dtype == torch.float64 else torch.float32
    blank = blank_place(blank, size)
    check_values(encoded.shape[1], size, targets, frames, labels, blank)
    sides = (each.to(dtype).contiguous() for each in (encoded, predicted))
    targets, frames, labels = (each.long().contiguous() for each in (targets, frames, labels))
    utterances = Utterances(targets, frames, labels, blank)
    loss: Tensor = HeadLoss.apply(*sides, output.weight, output.bias, multiplied, output, utterances)
    if loss.requires_grad:
        loss.register_hook(refuse_graph)
    return loss


class HeadLoss(Function):
    """The mean of -log P(targets) over utterances, ()."""

    @staticmethod
    def forward(
        ctx: Any,
        encoded: Tensor,
        predicted: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        multiplied: bool,
        output: Affine,
        utterances: Utterances,
    ) -> Tensor:
        """`weight` and `bias` are those of the output: handed over once more, so that they get a gradient."""
        sides = Sides(encoded.detach(), predicted.detach(), multiplied, output.tanh is None)
        layer = Layer(output, sides.encoded)
        ctx.gradients = Gradients.zeros(sides, layer) if any(ctx.needs_input_grad) else None
        limit = limits(encoded)
        parts = list(groups(utterances, limit.group // (4 * len(weight))))
        count = callers(len(parts)) if encoded.device.type == "cpu" else 1
        batch = Batch(sides, utterances, layer, 1 / len(encoded), limit.kept // count)
        shares = in_shares(partial(of_groups, batch, ctx.gradients), parts, count)
        if ctx.gradients is not None:
            ctx.gradients.add(own for _, own in shares if own is not None)
        return torch.cat([losses for losses, _ in shares]).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """`upstream` (): the gradient of the mean."""
        return *(each if each is None else each * upstream for each in ctx.gradients), None, None, None


class Gradients(NamedTuple):
    """Of the mean loss, in the sides' dtype; groups add theirs."""

    encoded: Tensor
    predicted: Tensor
    weight: Tensor
    bias: Tensor | None

    @classmethod
    def zeros(cls, sides: Sides, layer: "Layer") -> "Gradients":
        """Before the first group."""
        encoded, predicted, weight = (
            torch.zeros_like(each, dtype=sides.encoded.dtype) for each in (sides.encoded, sides.predicted, layer.weight)
        )
        return cls(encoded, predicted, weight, None if layer.bias is None else weight.new_zeros(len(layer.bias)))

    def apart(self) -> "Gradients":
        """For some utterances: in the sides' gradients each has its own places, the layer's they sum up from zero."""
        bias = None if self.bias is None else torch.zeros_like(self.bias)
        return self._replace(weight=torch.zeros_like(self.weight), bias=bias)

    def add(self, others: Iterable["Gradients"]) -> None:
        """Take in those that were apart."""
        for other in others:
            self.weight.add_(other.weight)
            if self.bias is not None and other.bias is not None:
                self.bias.add_(other.bias)


class Layer:
    """An output layer that multiplies rows in its own dtype."""

    def __init__(self, output: Affine, like: Tensor) -> None:
        """Args: the layer; a tensor of the sides' dtype and device."""
        self.output, self.kind = output, like.device.type
        autocast = torch.is_autocast_enabled(self.kind) and output.gradient is None
        self.dtype = torch.get_autocast_dtype(self.kind) if autocast else output.gradient or like.dtype
        self.weight = output.weight.detach().to(self.dtype)
        self.bias = None if output.bias is None else output.bias.detach().to(self.dtype)
        self.scores_in = self.dtype if output.product is None else like.dtype

    def score(self, joined: Tensor, logits: Tensor) -> Tensor:
        """Write logits (N, V), in `scores_in`, of joined rows (N, J)."""
        if self.output.product is not None:
            return logits.copy_(self.output.product(self._bent(joined)))
        rows = self._prepared(joined)
        with torch.autocast(self.kind, enabled=False):
            rows, columns = rows.to(self.dtype), self.weight.t()
            if self.bias is None:
                return torch.mm(rows, columns, out=logits)
            return torch.addmm(self.bias, rows, columns, out=logits)

    def differentiate(self, joined: Tensor, gradient: Tensor, sums: Gradients) -> Tensor:
        """Add what the gradient (N, V) of joined rows' logits means for weight and bias; that of the rows (N, J)."""
        with torch.enable_grad():
            leaf = joined.detach().requires_grad_()
            prepared = self._prepared(leaf)
        with torch.autocast(self.kind, enabled=False):
            narrow, rows = gradient.to(self.dtype), prepared.detach().to(self.dtype)
            sums.weight.add_(narrow.t() @ rows)
            own = narrow @ self.weight
        if sums.bias is not None:
            sums.bias.add_(gradient.sum(0))
        if prepared is not leaf:
            (own,) = torch.autograd.grad(prepared, leaf, own.to(prepared.dtype))
        return own.to(gradient.dtype)

    def _bent(self, joined: Tensor) -> Tensor:
        return joined if self.output.tanh is None else self.output.tanh(joined)

    def _prepared(self, joined: Tensor) -> Tensor:
        bent = self._bent(joined)
        return bent if self.output.prepare is None else self.output.prepare(bent)


class Batch(NamedTuple):
    """What is computed group by group."""

    sides: Sides
    utterances: Utterances
    layer: Layer
    scale: float
    """What one utterance's loss counts in the mean."""
    kept: int
    """`Limits.kept` of one thread, which has one group at a time."""

    def tiles(self, here: slice) -> Tiles:
        """What computes some of the utterances."""
        sides, (targets, frames, labels, blank) = self.sides, self.utterances
        few = sides._replace(encoded=sides.encoded[here], predicted=sides.predicted[here])
        code = CompiledTiles if usable(*few[:2]) else PortableTiles
        return code(few, Utterances(targets[here], frames[here], labels[here], blank))


def groups(utterances: Utterances, limit: int) -> Iterator[slice]:
    """Consecutive utterances that have no more nodes together than `limit`, unless one has."""
    nodes = (utterances.frames * (utterances.labels + 1)).tolist()
    first = 0
    for last in range(1, len(nodes) + 1):
        if last == len(nodes) or sum(nodes[first : last + 1]) > limit:
            yield slice(first, last)
            first = last


@torch.no_grad()
def of_groups(batch: Batch, gradients: Gradients | None, parts: Sequence[slice]) -> tuple[Tensor, Gradients | None]:
    """The losses of some groups' utterances, and the layer's gradients by themselves, if any are wanted."""
    own = None if gradients is None else gradients.apart()
    with torch.autocast(batch.layer.kind, enabled=False):
        return torch.cat([Group(batch, here).loss(own) for here in parts]), own


class Group:
    """Some utterances of a batch."""

    def __init__(self, batch: Batch, here: slice) -> None:
        """Args: of what; where they lie."""
        self.tiles, self.here, self.layer, self.scale = batch.tiles(here), here, batch.layer, batch.scale
        self.inside = inside(self.tiles)
        self.nodes = self.inside.nonzero()
        weight = self.layer.weight
        size, hidden = weight.shape
        tile = limits(weight).tile // (4 * (size + hidden))
        self.rows = power_above(max(tile, LEAST_ROWS) + 1) // 2
        kept = min(batch.kept // (4 * max(size, hidden)), len(self.nodes) + self.rows) // self.rows * self.rows
        self.logits = weight.new_empty(kept, size, dtype=self.layer.scores_in)
        self.joined = batch.sides.encoded.new_empty(kept, hidden)

    def loss(self, gradients: Gradients | None) -> Tensor:
        """Of each utterance; adds the gradients of its share, if they are wanted."""
        nodes = self._filled(self.nodes)
        for first in range(0, len(nodes), self.rows):
            tile = nodes[first : first + self.rows]
            here = slice(first, first + len(tile))
            kept = self.joined[here], self.logits[here]
            self.tiles.read(tile, self._computed(tile, *(kept if len(kept[0]) else self._room(tile)))[1])
        losses = self.tiles.finish()
        if gradients is not None:
            places = self._passed()
            kept_places = int((places < len(self.logits)).sum())
            self._add(places[:kept_places], gradients, again=False)
            self._add(places[kept_places:], gradients, again=True)
        return losses

    def _filled(self, items: Tensor) -> Tensor:
        """Items (N, ...) and then the last one again, until the last tile is as large as a power of two.

        So there are few sizes: oneDNN compiles a bfloat16 product for each, in half a millisecond or more.
        """
        rest = len(items) % self.rows
        missing = max(power_above(rest), LEAST_ROWS) - rest if rest else 0
        return torch.cat([items, items[-1:].expand(missing, *items.shape[1:])])

    def _passed(self) -> Tensor:
        """Which of the nodes alignments pass, (N',) int64; all of an utterance whose loss is no number."""
        sides = self.tiles.sides
        longest = max(sides.encoded.shape[1], sides.predicted.shape[1])
        passed = ~(self.tiles.occupancy() <= torch.finfo(sides.encoded.dtype).eps / longest)
        return passed[self.inside].nonzero()[:, 0]

    def _add(self, places: Tensor, gradients: Gradients, again: bool) -> None:
        """The gradients of nodes (N',), whose logits are kept, or computed `again`."""
        filled = self._filled(places)
        nodes = self.nodes.index_select(0, filled)
        of_sides = gradients.encoded[self.here], gradients.predicted[self.here]
        for first in range(0, len(nodes), self.rows):
            tile, kept = nodes[first : first + self.rows], filled[first : first + self.rows]
            if again:
                joined, logits = self._computed(tile, *self._room(tile))
            else:
                joined, logits = (each.index_select(0, kept) for each in (self.joined, self.logits))
            gradient = logits.to(joined.dtype)
            self.tiles.differentiate(tile, gradient, self.scale)
            gradient[max(len(places) - first, 0) :].zero_()
            self.tiles.add_gradients(tile, joined, self.layer.differentiate(joined, gradient, gradients), *of_sides)

    def _computed(self, nodes: Tensor, joined: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Write joined rows (N, J) and logits (N, V) of nodes; returns both."""
        return self.tiles.join(nodes, joined), self.layer.score(joined, logits)

    def _room(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """For joined rows and logits of nodes that are not kept."""
        joined, logits = (each.new_empty(len(nodes), each.shape[1]) for each in (self.joined, self.logits))
        return joined, logits


def power_above(number: int) -> int:
    """The least power of two that is not below a number from 1 on."""
    return 1 << (number - 1).bit_length()


def limits(like: Tensor) -> Limits:
    """Of the device where a tensor lies."""
    return LIMITS.get(like.device.type, LIMITS_ELSEWHERE)


def inside(tiles: Tiles) -> Tensor:
    """The nodes within the utterances' lengths, (B, T, U + 1) bool."""
    (encoded, predicted, *_), (_, frames, labels, _) = tiles.sides, tiles.utterances
    t, u = (torch.arange(each.shape[1], device=each.device) for each in (encoded, predicted))
    return (t[:, None] < frames[:, None, None]) & (u <= labels[:, None, None])
