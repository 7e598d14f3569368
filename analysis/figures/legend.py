"""Legends above the axes, in as few rows as the width allows."""

from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.style import MARKS, PAPER, Mark

LONGEST = 48  # characters of a name
BASELINE: dict[str, Any] = {"color": MARKS["float"].color, "lw": 0.9, "ls": (0, (1, 1.6))}
"""How the float baseline's line looks."""


def legend(figure: Figure, handles: Sequence[Artist], **look: Any) -> float:
    """Draw the legend in the upper left corner; return where it ends below, as a fraction of the figure's height."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    for rows in range(1, len(handles) + 1):
        columns = -(-len(handles) // rows)
        drawn = figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(0.074, 1.0),
            ncols=columns,
            columnspacing=1.6,
            borderaxespad=0.2,
            labelspacing=0.3,
            **look,
        )
        box = drawn.get_window_extent(renderer)
        if box.x1 <= figure.bbox.x1 or columns == 1:
            break
        drawn.remove()
    return float(box.y0 / figure.bbox.height)


def handle(name: str, mark: Mark, filled: bool = True, **line: Any) -> Line2D:
    """A policy's entry."""
    face = mark.color if filled else PAPER
    text = name if len(name) <= LONGEST else f"{name[:LONGEST]}..."
    line = {"ls": "", **line}
    return Line2D(
        [], [], marker=mark.marker, ms=mark.size, color=mark.color, mfc=face, mec=mark.color, label=text, **line
    )
