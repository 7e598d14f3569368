"""The search of a recognizer, as far as it is priced: how many hypotheses it carries, and how often they grow.

All hypotheses of a beam go through a layer as one batch: M rows of its products, for which its weights are read once.
The search's own work, sorting and merging of hypotheses, costs nothing here.
"""

from dataclasses import dataclass, fields, replace
from typing import Annotated

from annotated_types import Ge, Gt, Le

from qstudy.fields import check_fields

MOST_HYPOTHESES = 10_000
"""Beams are narrower."""
Beam = Annotated[int, Ge(1), Le(MOST_HYPOTHESES)]
Expansions = Annotated[float, Gt(0), Le(1000)]
LabelsPerHypothesis = Annotated[float, Ge(1), Le(1_000_000)]


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
    """How often, per label of the transcript, the beam goes through what runs per label: prediction network, language
    models. Else 1, as if no hypothesis were dropped; those that are dropped held labels, too."""

    def __post_init__(self) -> None:
        check_fields(self)

    def or_else(self, other: "Search") -> "Search":
        """This search, and the other one where it says nothing."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(other, **{name: value for name, value in said.items() if value is not None})


GREEDY = Search()
