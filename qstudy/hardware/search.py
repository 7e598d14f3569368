"""The search of a recognizer, as far as it is priced: how many hypotheses it carries, and how often they grow.

All hypotheses of a beam go through a layer as one batch: M rows of its products, for which its weights are read once.
The search's own work, sorting and merging of hypotheses, costs nothing here.
"""

from dataclasses import dataclass, fields, replace
from math import ceil
from typing import Annotated

from annotated_types import Ge, Gt, Le

from qstudy.errors import UserError
from qstudy.fields import check_fields

MOST_HYPOTHESES = 10_000
"""Beams are narrower."""
Beam = Annotated[int, Ge(1), Le(MOST_HYPOTHESES)]
LEAST, MOST = 1e-3, 1000.0
"""What is counted is told as no less and no more."""
Expansions = Annotated[float, Gt(0), Le(MOST)]
LabelsPerHypothesis = Annotated[float, Gt(0), Le(MOST)]
BatchesPerLabel = Annotated[float, Gt(0), Le(MOST)]


@dataclass(frozen=True)
class Search:
    """How often a decoder's layers run; None: as the model's own description has it, or else as the field says."""

    beam: Beam | None = None
    """Hypotheses; else 1."""
    expansions: Expansions | None = None
    """Of a time-synchronous search: how often per joint frame all hypotheses go through the joiner, at most one more
    than a frame may have labels. Else once per joint frame and once per label, as in greedy search, and in
    alignment-length synchronous search (Saon et al. 2020)."""
    labels_per_hypothesis: LabelsPerHypothesis | None = None
    """Labels that go through what runs per label (prediction network, language models), per hypothesis of the beam and
    label of the transcript. Else 1: hypotheses that are dropped had labels, too; those that begin alike share some."""
    batches_per_label: BatchesPerLabel | None = None
    """In how many batches these go through it, per label of the transcript: its weights are read for each. Else as many
    as there are labels per hypothesis, the whole beam in each: the fewest. Hypotheses that get their labels at
    different times are in more."""

    def __post_init__(self) -> None:
        check_fields(self)
        labels = self.labels_per_hypothesis or 1.0
        if self.batches_per_label is not None and self.batches_per_label < labels:
            raise UserError(
                f"batches_per_label: {self.batches_per_label:g} must be at least labels_per_hypothesis, {labels:g}: no "
                "batch has more hypotheses than the beam."
            )

    @property
    def hypotheses(self) -> int:
        """The beam."""
        return self.beam or 1

    @property
    def batches(self) -> float:
        """How often, per label of the transcript, some of them go together through what runs per label; no batch is
        empty."""
        labels = self.labels_per_hypothesis or 1.0
        return min(self.batches_per_label or labels, labels * self.hypotheses)

    @property
    def batch(self) -> int:
        """How many of them do."""
        return ceil(self.hypotheses * (self.labels_per_hypothesis or 1.0) / self.batches - 1e-9)

    def or_else(self, other: "Search") -> "Search":
        """This search, and the other one where it says nothing."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(other, **{name: value for name, value in said.items() if value is not None})


GREEDY = Search()


def counted(beam: int, frames: int, labels: int, expansions: int, computed: int, calls: int) -> Search:
    """The search that was seen to do this work. A recognizer of very few bits may say hardly anything, and so
    do much per label: that is told as the most that a search may.

    Args:
        beam: its hypotheses.
        frames: that it has searched.
        labels: of the best hypotheses; if there are none, nothing is said but the beam.
        expansions: how often the joiner was asked.
        computed: label sequences that the prediction network was asked for.
        calls: how often it was asked.
    """
    if not labels:
        return Search(beam)
    grown = _bounded(computed / labels / beam)
    return Search(beam, _bounded(expansions / max(frames, 1)), grown, max(_bounded(calls / labels), grown))


def _bounded(value: float) -> float:
    return min(max(value, LEAST), MOST)
