"""Which utterances go together into an optimizer step, and which part of them each device computes.

Everything here is a pure function of (seed, epoch, step): a resumed run, and a run on more devices, see the batches
that an uninterrupted run on one device would have seen.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

_JITTER = 0.05  # utterances whose lengths differ by less may change places from epoch to epoch
_LONGER = (1 + _JITTER) / (1 - _JITTER)  # how much longer than planned an utterance at a place can be


class BatchSampler:
    """Utterances of similar length together; epoch 0 runs from short to long, later ones are shuffled."""

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int, batch_frames: int | None = None) -> None:
        """Plan the batches.

        Args:
            lengths: (items,) frames of each utterance.
            batch_size: utterances per batch; the last one may have fewer.
            seed: of the order.
            batch_frames: frames per batch at most, padding included; one longer utterance is a batch of its own.
                None: no limit.
        """
        self.lengths, self.seed = lengths, seed
        self._starts = _starts(np.sort(lengths), batch_size, batch_frames)

    def __len__(self) -> int:
        return len(self._starts)

    def batches(self, epoch: int) -> list[list[int]]:
        """The utterances of every batch of an epoch, in the order of training."""
        generator = np.random.default_rng((self.seed, epoch))
        order = np.argsort(self.lengths * generator.uniform(1 - _JITTER, 1 + _JITTER, len(self.lengths)), kind="stable")
        batches = [batch.tolist() for batch in np.split(order, self._starts[1:])]
        return batches if epoch == 0 else [batches[index] for index in generator.permutation(len(batches))]


def _starts(ordered: np.ndarray, batch_size: int, batch_frames: int | None) -> list[int]:
    """Where each batch begins among lengths in rising order.

    The places stay the same from epoch to epoch, so that every epoch has as many batches, and jitter cannot push a
    batch over its limit.
    """
    if batch_frames is None:
        return list(range(0, len(ordered), batch_size))
    fitting = np.maximum(batch_frames // np.ceil(ordered * _LONGER), 1)  # utterances as long as this one
    starts = [0]
    for place, count in enumerate(np.minimum(fitting, batch_size).tolist()):
        if place - starts[-1] >= count:
            starts.append(place)
    return starts


@dataclass(frozen=True)
class Piece:
    """What one device computes in one pass: its share of a batch."""

    indices: tuple[int, ...]
    """Utterances; never none: a share without any repeats the first of the batch, with weight 0."""
    epoch: int
    augmented: bool
    weight: float
    """Utterances in it, relative to those of an equal share: with this weight, the mean over all devices and passes of
    the pieces' mean losses is the mean over the batch's utterances. Of texts their labels count in its place."""


def split(batch: list[int], parts: int, counts: np.ndarray | None = None) -> list[tuple[tuple[int, ...], float]]:
    """Deal a batch out to `parts` shares of about the same frames: their utterances and weights.

    Args:
        batch: utterances.
        parts: number of shares.
        counts: (items,) how much of a mean loss over a batch each one is; None: all the same.
    """
    sizes = np.ones(max(batch) + 1, np.int64) if counts is None else counts
    shares, whole = [batch[part::parts] for part in range(parts)], int(sizes[batch].sum())
    return [(tuple(share or batch[:1]), int(sizes[share].sum()) * parts / whole) for share in shares]


@dataclass
class PieceSampler(Sampler[Piece]):
    """The pieces of one device, from an optimizer step on, for ever."""

    batches: BatchSampler
    first_epoch: int
    """1 leaves out epoch 0, which runs from short to long, for beginners."""
    augment_from: int
    """Optimizer step from which utterances are augmented."""
    accumulate: int = 1
    """Passes per optimizer step."""
    rank: int = 0
    ranks: int = 1
    """Number of devices."""
    step: int = 0
    """Optimizer step to begin with."""
    counts: np.ndarray | None = None
    """As in `split`."""

    def __iter__(self) -> Iterator[Piece]:
        step, current, plan = self.step, -1, list[list[int]]()
        while True:
            epoch, position = divmod(step, len(self.batches))
            if epoch != current:
                current, plan = epoch, self.batches.batches(self.first_epoch + epoch)
            shares = split(plan[position], self.accumulate * self.ranks, self.counts)
            for indices, weight in shares[self.rank :: self.ranks]:
                yield Piece(indices, self.first_epoch + epoch, step >= self.augment_from, weight)
            step += 1
