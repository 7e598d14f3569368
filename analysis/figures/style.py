"""How figures look: one palette by policy (shape and colour), one set of matplotlib settings, deterministic files."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.variants import order

# Greys by role. The page swaps them for its own (dark mode), so nothing else may use the very same values.
INK, MUTED, GRID, SHADE, PAPER = "#1c1d21", "#62656d", "#e4e5e9", "#f3f3f6", "#ffffff"
ROLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", SHADE: "var(--shade)", PAPER: "var(--paper)"}

SETTINGS = Path(__file__).parents[1] / "templates" / "paper.mplstyle"
WIDTH = 6.6  # inches: a text column, or the whole width of a page with two
DAYS = {"png": "Software", "pdf": "CreationDate", "svg": "Date"}
"""Ending -> the metadatum that would tell of the day or the machine."""
LONGEST, LINE = 48, 92  # characters of a name, and of a legend's row


@dataclass(frozen=True)
class Mark:
    """How a policy is drawn."""

    color: str
    marker: str

    @property
    def size(self) -> float:
        """In points; a star's tips are thin."""
        return 10.0 if self.marker == "*" else 6.0


# Okabe and Ito's colours, safe for colour-blind readers; shapes carry the same in black and white.
MARKS = {
    "float": Mark(INK, "*"),
    "ptq": Mark("#e69f00", "s"),
    "fake_qat": Mark("#0072b2", "o"),
    "mixed": Mark("#009e73", "D"),
    "encoder_only": Mark("#d55e00", "^"),
    "native_int": Mark("#cc79a7", "v"),
    "s8bqat": Mark("#56b4e9", "P"),
    "accelerator_aware": Mark("#a08a00", "X"),
    "int4_e2e": Mark("#7f4fa0", "h"),
}
OWN = (Mark("#882255", "p"), Mark("#117733", "<"), Mark("#88663c", ">"), Mark("#555555", "8"))
VARIANTS = ((0.25, "d"), (0.5, "H"), (0.65, "<"), (0.15, "8"), (0.4, "p"), (0.6, ">"), (0.3, "s"), (0.55, "^"))
"""Of one policy's look: how much darker than the policy's colour, and the marker."""


def marks(methods: Iterable[str]) -> dict[str, Mark]:
    """Method -> mark, in their order; a policy's variants share its colour, darker and darker."""
    grouped: dict[str, list[str]] = {}
    for name in order(methods):
        grouped.setdefault(name.partition(" ")[0], []).append(name)
    own = [policy for policy in grouped if policy not in MARKS]
    looks = MARKS | {policy: OWN[place % len(OWN)] for place, policy in enumerate(own)}
    return {
        name: _variant(looks[policy], place) for policy, names in grouped.items() for place, name in enumerate(names)
    }


def _variant(mark: Mark, place: int) -> Mark:
    if not place:
        return mark
    darker, marker = VARIANTS[(place - 1) % len(VARIANTS)]
    red, green, blue = ((1 - darker) * part for part in to_rgb(mark.color))
    return Mark(to_hex((red, green, blue)), marker)


def handle(name: str, mark: Mark, filled: bool = True, line: str = "") -> Line2D:
    """An entry of a legend, and the look of a line: a mark with a name."""
    face = mark.color if filled else PAPER
    return Line2D([], [], color=mark.color, marker=mark.marker, ms=mark.size, mfc=face, ls=line, label=short(name))


def short(name: str) -> str:
    """A name that fits beside axes and in a legend; of long ones the ends, where methods of one policy differ."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}...{name[-LONGEST // 2 :]}"


def framed(height: float, handles: Sequence[Line2D]) -> Figure:
    """An empty figure with a legend above, in as many columns as the width has room for, and `height` inches below."""
    longest = max(len(str(one.get_label())) for one in handles)
    columns = max(1, LINE // (longest + 6))
    rows = -(-len(handles) // columns)
    figure = Figure(figsize=(WIDTH, height + 0.16 * rows), layout="constrained")
    figure.legend(handles=handles, loc="outside upper left", ncols=columns)
    return figure


@dataclass(frozen=True)
class Picture:
    """A figure with all that a reader needs beside it."""

    name: str
    """File name without its ending."""
    title: str
    caption: str
    figure: Figure
    plot: dict[str, Any] | None = None
    """What the page shows in its place: a plot of the runs (`analysis.figures.interactive`)."""

    def drawn(self) -> dict[str, bytes]:
        """File name -> content as PNG, PDF and SVG; equal figures give equal bytes."""
        return {f"{self.name}.{ending}": self._saved(ending, day) for ending, day in DAYS.items()}

    def _saved(self, ending: str, day: str) -> bytes:
        buffer = io.BytesIO()
        with rc_context(fname=SETTINGS):
            self.figure.savefig(buffer, format=ending, metadata={day: None})
        return buffer.getvalue()
