"""The figures of a study. A new one is a function of a study in a file of its own, named in `FIGURES`."""

from collections.abc import Callable, Iterator

from matplotlib import rc_context

from analysis.figures.allocation import allocation
from analysis.figures.by_width import by_width
from analysis.figures.style import SETTINGS, Picture
from analysis.figures.tradeoff import tradeoff
from analysis.study import Study

FIGURES: tuple[Callable[[Study], Iterator[Picture]], ...] = (by_width, tradeoff, allocation)
"""In the order of the page; each yields as many pictures as the study has something to show for."""


def pictures(study: Study) -> list[Picture]:
    """Everything that there is to show of a study, drawn in one style."""
    with rc_context(fname=SETTINGS):
        return [picture for figure in FIGURES for picture in figure(study)]
