"""The figures of a study. A new one is a function of a study in a file of its own, named in `FIGURES`."""

from collections.abc import Callable, Iterator, Sequence

from matplotlib import rc_context

from analysis.figures.allocation import allocation
from analysis.figures.by_width import by_width
from analysis.figures.fronts import Named, fronts
from analysis.figures.style import SETTINGS, Picture
from analysis.figures.tradeoff import tradeoff
from analysis.study import Study

Figures = Sequence[Callable[[Study], Iterator[Picture]]]
"""Each yields as many pictures as the study has something to show for."""
FIGURES: Figures = (by_width, tradeoff, allocation)
"""In the order of the page."""


def overlaid(studies: Named) -> list[Picture]:
    """What there is to show of several studies together; nothing of one."""
    with rc_context(fname=SETTINGS):
        return list(fronts(studies)) if len(studies) > 1 else []


def pictures(study: Study, figures: Figures = FIGURES) -> list[Picture]:
    """Everything that there is to show of a study, drawn in one style."""
    with rc_context(fname=SETTINGS):
        return [picture for figure in figures for picture in figure(study)]
