"""Numbers as readers expect them: per cent, sizes, changes."""

import math
import re

MIB = 2**20
DASH = "–"


def percent(fraction: float | None) -> str:
    """A word error rate without its sign: 0.0162 -> `1.62`, 0.234 -> `23.4`."""
    if fraction is None or math.isnan(fraction):
        return DASH
    return f"{100 * fraction:.2f}" if abs(fraction) < 0.09995 else f"{100 * fraction:.1f}"


def change(ratio: float) -> str:
    """A relative change in per cent, with its sign: `+12`, `−3`."""
    rounded = round(100 * ratio)
    return f"{rounded:+d}".replace("-", "−") if rounded else "0"


def points(fraction: float) -> str:
    """A difference of rates in percentage points with a sign: `−0.12`; a dash for NaN."""
    if math.isnan(fraction):
        return DASH
    text = f"{100 * fraction:+.2f}" if abs(fraction) < 0.09995 else f"{100 * fraction:+.1f}"
    return "0" if float(text) == 0 else text.replace("-", "−")


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, never in exponent notation."""
    if math.isnan(value):
        return DASH
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}" if value else "0"


def size(value: float) -> str:
    """A size in words: `489 KiB`, `1.95 MiB`."""
    if math.isnan(value):
        return DASH
    return f"{number(value / MIB)} MiB" if value >= MIB else f"{number(value / 1024)} KiB"


def one_line(text: str) -> str:
    """`text` without line breaks and control characters."""
    return "".join(character if character.isprintable() else " " for character in text)


def slug(text: str) -> str:
    """`text` as part of a file's name: whatever has a meaning of its own becomes a dash."""
    return re.sub(r"[^\w.,+=]+", "-", text).strip("-.") or "unnamed"


def by_number(text: str) -> list[tuple[int, str]]:
    """A key to sort by in which `snr5` comes before `snr10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", text)]


def listed(words: list[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def counted(count: int, noun: str) -> str:
    """`1 trial`, `2 trials`, `3 studies`, `4 searches`."""
    several = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else several}"
