"""A loop over frames as data: what it does, and the tensors that it does it to."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

from torch import Tensor

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Loop:
    """A loop over T frames that knows nothing but its tensors, so that it can also run in other memory."""

    frames: Callable[..., None]
    """Called with the settings and then all tensors, in the order of the fields; it never waits for their values."""
    settings: tuple[Hashable, ...]
    """What is no tensor."""
    fixed: Tensors
    """What every frame reads."""
    carried: Tensors
    """What goes from frame to frame: before the first one, and afterwards, in the same memory, after the last."""
    read: Tensors
    """(T, ...) each: frames that are read."""
    changed: Tensors
    """(T, ...) each: frames that are read, then written."""
    written: Tensors
    """(T, ...) each: frames that are written."""
    backward: bool = False
    """Whether the last frame comes first."""

    def __len__(self) -> int:
        return len(self.changed[0])

    @property
    def loaded(self) -> Tensors:
        """What must be there before the frames run."""
        return self.read + self.changed

    @property
    def stored(self) -> Tensors:
        """What the frames leave."""
        return self.changed + self.written

    def run(self) -> None:
        """All frames."""
        self.frames(*self.settings, *self.fixed, *self.carried, *self.read, *self.changed, *self.written)

    def part(self, place: slice) -> "Loop":
        """The loop over some of the frames."""
        read, changed, written = (tuple(t[place] for t in role) for role in (self.read, self.changed, self.written))
        return replace(self, read=read, changed=changed, written=written)
