"""Labels beside points of a figure, placed so that they cover neither each other nor anything drawn."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from analysis.style import INK, MUTED, PAPER

Box = tuple[float, float, float, float]
"""Left, bottom, right, top; pixels."""

DISTANCES = (9, 13, 18, 25, 34, 46)
# Below and left of a front nothing can lie: try there first.
ANGLES = (225, 205, 245, 180, 270, 45, 70, 20, 135, 110, 160, 315, 340, 290, 0, 90)


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
        self.taken: list[Box] = []

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of the data coordinates."""
        px, py = self.axes.transData.transform((x, y))
        return float(px), float(py)

    def block_point(self, x: float, y: float, radius: float = 5.0) -> None:
        """Keep labels off a marker at the data coordinates; `radius` in points."""
        px, py = self.pixel(x, y)
        half = radius * self.scale
        self.taken.append((px - half, py - half, px + half, py + half))

    def block_line(self, start: tuple[float, float], end: tuple[float, float], radius: float = 1.5) -> None:
        """Keep labels off the straight line between two data coordinates."""
        first, last = np.array(self.pixel(*start)), np.array(self.pixel(*end))
        steps = max(1, math.ceil(float(np.abs(last - first).max()) / (4 * self.scale)))
        half = radius * self.scale
        for fraction in np.linspace(0, 1, steps + 1):
            px, py = first + fraction * (last - first)
            self.taken.append((px - half, py - half, px + half, py + half))

    def block_text(self, text: Text) -> None:
        """Keep labels off a text that is already there."""
        box = text.get_window_extent(self.canvas.get_renderer())
        self.taken.append((box.x0, box.y0, box.x1, box.y1))

    def place(self, texts: Sequence[tuple[float, float, str]]) -> None:
        """Write every (x, y, text) as near to its point as there is room, with a thin line where that is far."""
        for x, y, text in texts:
            self._place_one(x, y, text)

    def _place_one(self, x: float, y: float, text: str) -> None:
        width, height = self._extent(text)
        px, py = self.pixel(x, y)
        candidates = [
            self._candidate(px, py, width, height, distance, angle) for distance in DISTANCES for angle in ANGLES
        ]
        costs = [self._cost(box) + 0.6 * index for index, (_, box) in enumerate(candidates)]
        offset, box = candidates[int(np.argmin(costs))]
        self.taken.append(box)
        far = math.hypot(*offset) > 16
        self.axes.annotate(
            text,
            (x, y),
            xytext=offset,
            textcoords="offset points",
            fontsize=8,
            color=INK,
            zorder=9,
            path_effects=[withStroke(linewidth=2, foreground=PAPER, alpha=0.8)],
            ha="center",
            va="center",
            arrowprops={"arrowstyle": "-", "color": MUTED, "lw": 0.5, "shrinkA": 1, "shrinkB": 3} if far else None,
        )

    def _extent(self, text: str) -> tuple[float, float]:
        probe = self.axes.text(0, 0, text, fontsize=8)
        box = probe.get_window_extent(self.canvas.get_renderer())
        probe.remove()
        return box.width, box.height

    def _candidate(
        self, px: float, py: float, width: float, height: float, distance: float, angle: float
    ) -> tuple[tuple[float, float], Box]:
        """(offset of the centre in points, box in pixels): the box's edge is `distance` from the point."""
        dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        cx = px + dx * (distance * self.scale * 0.8 + width / 2)
        cy = py + dy * (distance * self.scale * 0.8 + height / 2)
        box = (cx - width / 2 - 1, cy - height / 2 - 1, cx + width / 2 + 1, cy + height / 2 + 1)
        return ((cx - px) / self.scale, (cy - py) / self.scale), box

    def _cost(self, box: Box) -> float:
        """Covered area, heavily weighted, and whatever sticks out of the axes."""
        frame = self.axes.get_window_extent()
        outside = max(0.0, frame.x0 - box[0]) + max(0.0, box[2] - frame.x1 - 12 * self.scale)
        outside += max(0.0, frame.y0 - box[1]) + max(0.0, box[3] - frame.y1)
        return 10 * _covered(box, self.taken) + 50 * outside


def _covered(box: Box, others: list[Box]) -> float:
    if not others:
        return 0.0
    left, bottom, right, top = np.array(others).T
    wide = np.clip(np.minimum(right, box[2]) - np.maximum(left, box[0]), 0, None)
    high = np.clip(np.minimum(top, box[3]) - np.maximum(bottom, box[1]), 0, None)
    return float((wide * high).sum())
