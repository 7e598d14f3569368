"""A table as CSV (raw numbers) and Markdown."""

from typing import Any

import pandas as pd

from analysis.tables.table import Cell, Table
from analysis.text import one_line

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet compute a text."""
MARKDOWN = {"|": r"\|", "<": "&lt;", "](": r"]\("}


def to_csv(table: Table) -> str:
    """Every column of the frame, raw values, an empty field where there is none."""
    frame = table.frame
    texts = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    whole = [name for name in frame.select_dtypes("float") if (frame[name].dropna() % 1 == 0).all()]
    safe = frame.assign(**{name: frame[name].map(plain) for name in texts}).astype(dict.fromkeys(whole, "Int64"))
    safe = safe.rename(columns=plain)
    return str(safe.to_csv(index=False, lineterminator="\n"))


def plain(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def to_markdown(table: Table) -> str:
    """The printed columns, padded so that the source is readable as well."""
    rows = [[markdown(column.header) for column in table.columns]]
    rows += [[_markdown(cell) for cell in row] for row in table.cells]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    right = [column.align == "r" for column in table.columns]
    rule = [("-" * (width - 1) + ":") if last else "-" * width for width, last in zip(widths, right, strict=True)]
    padded = [
        [text.rjust(width) if last else text.ljust(width) for text, width, last in zip(row, widths, right, strict=True)]
        for row in rows
    ]
    lines = [f"| {' | '.join(row)} |" for row in (padded[0], rule, *padded[1:])]
    return "\n".join([*lines, "", markdown(table.caption), ""])


def markdown(text: str) -> str:
    """Escape `text` for Markdown: it ends no cell, makes no HTML, no link and no picture."""
    text = one_line(text)
    for special, escaped in MARKDOWN.items():
        text = text.replace(special, escaped)
    return text


def _markdown(cell: Cell) -> str:
    text = markdown(cell.text)
    return f"{f'**{text}**' if cell.bold else text} {markdown(cell.small)}".strip()
