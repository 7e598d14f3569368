"""How figures look: one palette by policy (shape and colour), one set of matplotlib settings, deterministic files."""

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from analysis.variants import order

# Greys by role. The page swaps them for its own (dark mode), so nothing else may use the very same values.
INK, MUTED, GRID, SHADE, PAPER = "#1c1d21", "#62656d", "#e4e5e9", "#f3f3f6", "#ffffff"
ROLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", SHADE: "var(--shade)", PAPER: "var(--paper)"}

SETTINGS = Path(__file__).parents[1] / "templates" / "paper.mplstyle"


@dataclass(frozen=True)
class Mark:
    """How a policy is drawn."""

    color: str
    marker: str
    size: float = 6.0
    """Marker size in points, evened out so that shapes look equally large."""
    dash: str | tuple[int, tuple[float, ...]] = "-"


# Okabe and Ito's colours, safe for colour-blind readers; shapes and dashes carry the same in black and white.
MARKS = {
    "float": Mark(INK, "*", 10.0, ":"),
    "ptq": Mark("#e69f00", "s", 5.4, (0, (4, 1.6))),
    "fake_qat": Mark("#0072b2", "o", 6.0),
    "mixed": Mark("#009e73", "D", 5.2, (0, (6, 1.5, 1, 1.5))),
    "encoder_only": Mark("#d55e00", "^", 6.4, (0, (2, 1.2))),
    "native_int": Mark("#cc79a7", "v", 6.4, (0, (5, 1, 1, 1, 1, 1))),
    "s8bqat": Mark("#56b4e9", "P", 6.8, (0, (8, 2))),
    "accelerator_aware": Mark("#a08a00", "X", 6.8, (0, (3, 1, 1, 1))),
    "int4_e2e": Mark("#7f4fa0", "h", 6.6, (0, (1, 1))),
}
OWN = (Mark("#882255", "p", 6.6), Mark("#117733", "<", 6.4), Mark("#88663c", ">", 6.4), Mark("#555555", "8", 6.2))


VARIANTS = (  # of one policy's look: the marker, its size, the dash, and how much darker than the policy's colour
    ("", 0.0, "-", 0.0),
    ("d", 5.8, (0, (1, 1.2)), 0.25),
    ("H", 6.2, (0, (6, 2)), 0.5),
    ("<", 6.2, (0, (2, 1)), 0.65),
)


def marks(methods: Iterable[str]) -> dict[str, Mark]:
    """Method -> mark, in their order; a policy's variants share its colour, darker and darker."""
    found: dict[str, Mark] = {}
    variants: dict[str, int] = {}
    own = 0
    for name in order(methods):
        policy = name.partition(" ")[0]
        number = variants[policy] = variants.get(policy, -1) + 1
        if policy not in MARKS and not number:
            own += 1
        found[name] = _variant(MARKS.get(policy, OWN[(own - 1) % len(OWN)]), number)
    return found


def _variant(mark: Mark, number: int) -> Mark:
    marker, size, dash, darker = VARIANTS[number % len(VARIANTS)]
    red, green, blue = ((1 - darker) * part for part in to_rgb(mark.color))
    return Mark(to_hex((red, green, blue)), marker, size, dash) if marker else mark


FORMATS = {"png": ("Software", 200), "pdf": ("CreationDate", 200), "svg": ("Date", 120)}
"""Ending -> the metadatum that would tell of the day, and pixels per inch; in SVG files only crowds are pixels."""


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
        return {f"{self.name}.{ending}": self._saved(ending, *FORMATS[ending]) for ending in FORMATS}

    def _saved(self, ending: str, date: str, dpi: int) -> bytes:
        buffer = io.BytesIO()
        with style.context(SETTINGS):
            self.figure.savefig(buffer, format=ending, dpi=dpi, metadata={date: None})
        content = buffer.getvalue()
        return re.sub(rb"[ \t]+\n", b"\n", content) if ending == "svg" else content


def inline_svg(name: str, svg: str) -> str:
    """A drawn SVG for the page: no prologue, ids of its own, greys that follow the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for color, role in ROLES.items():
        svg = svg.replace(color, role)
    return svg
