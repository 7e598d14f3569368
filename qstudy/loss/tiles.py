"""What the transducer's head asks of the code that computes it, tile by tile: a tile is some nodes of the lattice."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor


class Utterances(NamedTuple):
    """The labels that a batch should have; int64."""

    targets: Tensor
    """(B, U)."""
    frames: Tensor
    """(B,), from 1 to T."""
    labels: Tensor
    """(B,), from 0 to U."""
    blank: int
    """From 0 to V - 1."""


class Sides(NamedTuple):
    """What is joined at the node (t, u)."""

    encoded: Tensor
    """(B, T, J) float."""
    predicted: Tensor
    """(B, U + 1, J), of the same dtype."""
    multiplied: bool
    """Whether the sides are multiplied, not added."""
    bent: bool
    """Whether the tanh of that is handed on."""


class Tiles(ABC):
    """Some utterances. `nodes` (N, 3) int64 are their b, t and u; N is at most the tile's size."""

    def __init__(self, sides: Sides, utterances: Utterances) -> None:
        """Args: both sides, contiguous and without history; the labels."""
        self.sides, self.utterances = sides, utterances

    @abstractmethod
    def join(self, nodes: Tensor, joined: Tensor) -> Tensor:
        """Write both sides together into `joined` (N, J); returns it."""

    @abstractmethod
    def read(self, nodes: Tensor, logits: Tensor) -> None:
        """Keep of logits (N, V) what the lattice and the gradient need: a few numbers per node."""

    @abstractmethod
    def finish(self) -> Tensor:
        """After all were read: the losses (B,); from now on, how probable it is to pass each node is known."""

    @abstractmethod
    def occupancy(self) -> Tensor:
        """The probability that an alignment passes each node, (B, T, U + 1); anything outside an utterance."""

    @abstractmethod
    def differentiate(self, nodes: Tensor, logits: Tensor, scale: float) -> None:
        """Turn logits (N, V), contiguous, of the sides' dtype, into `scale` times the gradient of the losses' sum."""

    @abstractmethod
    def add_gradients(
        self, nodes: Tensor, hidden: Tensor, gradient: Tensor, of_encoded: Tensor, of_predicted: Tensor
    ) -> None:
        """Add to the last two, like the sides, what `gradient` (N, J) of `hidden`, which `join` made, means for them;
        `gradient` may be overwritten."""
