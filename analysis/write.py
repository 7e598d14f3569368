"""A table as CSV (raw numbers) and Markdown."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

from analysis.tables.table import Cell, Table
from analysis.text import one_line

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet compute a text."""
MARKDOWN = (("|", r"\|"), ("<", "&lt;"), ("](", r"]\("))


def to_csv(table: Table) -> str:
    """Every column of the frame, raw values, an empty field where there is none."""
    frame = table.frame.rename(columns=plain)
    whole = [name for name in frame.select_dtypes("float") if (frame[name].dropna() % 1 == 0).all()]
    safe = frame.select_dtypes(exclude="number").map(plain)
    return str(frame.assign(**safe).astype(dict.fromkeys(whole, "Int64")).to_csv(index=False, lineterminator="\n"))


def plain(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def to_markdown(table: Table) -> str:
    """The printed columns, padded so that the source is readable as well."""
    rows = [[_markdown(cell) for cell in row] for row in table.cells]
    columns = zip([markdown(column.header) for column in table.columns], *rows, strict=True)
    padded = [_padded(texts, column.align) for texts, column in zip(columns, table.columns, strict=True)]
    lines = [f"| {' | '.join(row)} |" for row in zip(*padded, strict=True)]
    return "\n".join([*lines, "", markdown(table.caption), ""])


def _padded(texts: Sequence[str], align: str) -> list[str]:
    """A column, below its header the rule."""
    width = max(3, *map(len, texts))
    header, *cells = [text.rjust(width) if align == "r" else text.ljust(width) for text in texts]
    return [header, "-" * (width - 1) + (":" if align == "r" else "-"), *cells]


def markdown(text: str) -> str:
    """Escape `text` for Markdown: it ends no cell, makes no HTML, no link and no picture."""
    return reduce(lambda said, escape: said.replace(*escape), MARKDOWN, one_line(text))


def _markdown(cell: Cell) -> str:
    text = markdown(cell.text)
    return f"{f'**{text}**' if cell.bold else text} {markdown(cell.small)}".strip()
