"""One line of the table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What was measured, ours beside a peer and beside a reference."""

    what: str
    """What is measured, with its size."""
    unit: str
    """Of all figures of the row: ms or MiB; less is better."""
    peer: str
    """Who is beside us."""
    ours: float | None = None
    """Our figure."""
    theirs: float | None = None
    """The peer's figure."""
    reference_is: str = ""
    """What else ours is held against: a floor, which is the least that the job can cost, or any other known job."""
    reference: float | None = None
    """Its figure."""
    skipped: str = ""
    """Why there are no figures of the peer, if there are none."""

    @property
    def ratio(self) -> float | None:
        """The peer's figure over ours: how many times better we are."""
        return self.theirs / self.ours if self.theirs and self.ours else None

    @property
    def distance(self) -> float | None:
        """Our figure over the reference's: never below 1 if that is a floor."""
        return self.ours / self.reference if self.ours and self.reference else None
