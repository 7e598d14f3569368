"""Labels beside points of a figure, where they cover neither each other nor what is drawn."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike, NDArray

from analysis.figures.style import INK, MUTED, PAPER

# Below and left of a front nothing can lie: try there first.
ANGLES = np.deg2rad((225, 205, 245, 180, 270, 45, 70, 20, 135, 110, 160, 315, 340, 290, 0, 90))
FAR = np.array([1, 1.4, 2, 2.8])
OFFSETS = np.outer(FAR, np.column_stack([27 * np.cos(ANGLES), 14 * np.sin(ANGLES)])).reshape(-1, 2)
"""Of a label's middle from its point, in points; the nearest first."""
LOOK: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 8, "color": INK}
LOOK |= {"arrowprops": {"arrowstyle": "-", "color": MUTED, "lw": 0.5, "shrinkA": 0, "shrinkB": 3}, "zorder": 9}
LOOK |= {"path_effects": [withStroke(linewidth=2, foreground=PAPER, alpha=0.8)]}


def write_labels(axes: Axes, labels: Iterable[tuple[float, float, str]], taken: NDArray[np.float64]) -> None:
    """Write every text near its point.

    Args:
        axes: the axes, with its limits and scales set for good and laid out.
        labels: x, y and text.
        taken: pixels that labels keep off, (N, 2).
    """
    written = [text.get_window_extent() for text in axes.texts]
    frame = axes.get_window_extent()

    def hits(box: Bbox) -> int:
        outside = box.x0 < frame.x0 or box.y0 < frame.y0 or box.x1 > frame.x1 or box.y1 > frame.y1
        return int(box.count_overlaps(written)) + int(box.count_contains(taken)) + 100 * outside

    for x, y, text in labels:
        middle = axes.text(x, y, text, ha="center", va="center", fontsize=8)
        box = middle.get_window_extent().padded(4)
        middle.remove()
        boxes = [box.translated(*(OFFSETS[place] * axes.figure.dpi / 72)) for place in range(len(OFFSETS))]
        best = min(range(len(boxes)), key=lambda place: hits(boxes[place]))
        axes.annotate(text, (x, y), tuple(OFFSETS[best]), **LOOK)
        written.append(boxes[best])


def along(axes: Axes, starts: ArrayLike, ends: ArrayLike) -> NDArray[np.float64]:
    """Pixels along the lines between data coordinates (N, 2), close enough to each other for a label to touch one."""
    first, last = (axes.transData.transform(np.asarray(one, dtype=float)) for one in (starts, ends))
    return np.asarray(np.linspace(first, last, 60).reshape(-1, 2))
