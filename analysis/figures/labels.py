"""Labels beside points of a figure, placed so that they cover neither each other nor anything drawn."""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from numpy.typing import ArrayLike, NDArray

from analysis.figures.style import INK, MUTED, PAPER

Floats = NDArray[np.float64]

DISTANCES = (9, 13, 18, 25, 34, 46)
# Below and left of a front nothing can lie: try there first.
ANGLES = (225, 205, 245, 180, 270, 45, 70, 20, 135, 110, 160, 315, 340, 290, 0, 90)
TRIED = [(distance, math.radians(angle)) for distance, angle in product(DISTANCES, ANGLES)]
REACH = np.array([distance for distance, _ in TRIED])[:, None]
TOWARDS = np.array([(math.cos(angle), math.sin(angle)) for _, angle in TRIED])


class Labels:
    """Finds free places among everything drawn so far.

    Args:
        axes: the axes, with its limits and scales set for good.
    """

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.canvas = FigureCanvasAgg(axes.figure.figure)
        self.canvas.draw()  # settles the layout, so that data coordinates have their final pixels
        self.scale = axes.figure.figure.dpi / 72
        self.taken: Floats = np.empty((0, 4))  # left, bottom, right, top; pixels

    def pixels(self, points: ArrayLike) -> Floats:
        """Pixels of the data coordinates, (N, 2)."""
        return np.asarray(self.axes.transData.transform(np.asarray(points, dtype=float).reshape(-1, 2)))

    def block(self, starts: ArrayLike, ends: ArrayLike | None = None, radius: float = 1.5) -> None:
        """Keep labels off level and upright lines between data coordinates (N, 2), or off markers there.

        Args:
            starts: one end of every line, or the markers.
            ends: the other end.
            radius: what else is covered around them; points.
        """
        first = self.pixels(starts)
        last = first if ends is None else self.pixels(ends)
        half = radius * self.scale
        self._take(np.hstack([np.minimum(first, last) - half, np.maximum(first, last) + half]))

    def block_text(self, text: Text) -> None:
        """Keep labels off a text that is already there."""
        self._take(np.array([text.get_window_extent(self.canvas.get_renderer()).extents]))

    def place(self, points: Sequence[tuple[float, float]], texts: Sequence[str]) -> None:
        """Write every text as near to its point as there is room, with a thin line where that is far."""
        for point, text in zip(points, texts, strict=True):
            self._place_one(point, text)

    def _take(self, boxes: Floats) -> None:
        self.taken = np.vstack([self.taken, boxes])

    def _place_one(self, point: tuple[float, float], text: str) -> None:
        extent, pixel = self._extent(text), self.pixels(point)
        centres = pixel + TOWARDS * (REACH * self.scale * 0.8 + extent / 2)
        boxes = np.hstack([centres - extent / 2 - 1, centres + extent / 2 + 1])
        best = int(np.argmin(self._costs(boxes) + 0.6 * np.arange(len(boxes))))
        self._take(boxes[best : best + 1])
        self._write(text, point, (centres[best] - pixel[0]) / self.scale)

    def _write(self, text: str, point: tuple[float, float], offset: Floats) -> None:
        line = {"arrowstyle": "-", "color": MUTED, "lw": 0.5, "shrinkA": 1, "shrinkB": 3}
        look: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 8}
        look["path_effects"] = [withStroke(linewidth=2, foreground=PAPER, alpha=0.8)]
        far = math.hypot(*offset) > 16
        self.axes.annotate(text, point, tuple(offset), color=INK, zorder=9, arrowprops=line if far else None, **look)

    def _extent(self, text: str) -> Floats:
        probe = self.axes.text(0, 0, text, fontsize=8)
        box = probe.get_window_extent(self.canvas.get_renderer())
        probe.remove()
        return np.array([box.width, box.height])

    def _costs(self, boxes: Floats) -> Floats:
        """Of each box the area that it covers, heavily weighted, and whatever sticks out of the axes."""
        frame = self.axes.get_window_extent()
        inside = np.array([frame.x0, frame.y0, frame.x1 + 12 * self.scale, frame.y1])
        outside = np.clip(inside[:2] - boxes[:, :2], 0, None).sum(1) + np.clip(boxes[:, 2:] - inside[2:], 0, None).sum(
            1
        )
        return 10 * _covered(boxes, self.taken) + 200 * outside


def _covered(boxes: Floats, others: Floats) -> Floats:
    """How much of each box (N, 4) lies under the others (M, 4); pixels squared."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.clip(high - low, 0, None).prod(2).sum(1)
