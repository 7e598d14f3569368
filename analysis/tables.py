"""A table once, written as CSV (raw numbers), Markdown and LaTeX with booktabs (as a paper prints them)."""

import csv
import io
import re
from dataclasses import dataclass
from typing import Literal

from analysis.text import one_line

Value = str | int | float | None


@dataclass(frozen=True)
class Column:
    """One column."""

    key: str
    """Its name in the CSV file."""
    header: str
    """Its name in print."""
    align: Literal["l", "r"] = "l"
    printed: bool = True
    """Whether it is in print at all; the CSV file has every column."""


@dataclass(frozen=True)
class Cell:
    """One cell: what the reader sees, and what a program reads and sorts by."""

    text: str
    value: Value = None
    interval: str = ""
    """Printed small behind the text: `[1.1, 2.3]`."""
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """Columns, rows and a caption."""

    name: str
    """File name without its ending."""
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: bool = False
    """Whether the page shows it on demand only: long lists beside what they were condensed to."""

    @property
    def printed(self) -> list[int]:
        """Positions of the columns that are printed."""
        return [index for index, column in enumerate(self.columns) if column.printed]


def to_csv(table: Table) -> str:
    """Every column, raw values, an empty field where there is none."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(plain(column.key) for column in table.columns)
    for row in table.rows:
        writer.writerow("" if cell.value is None else plain(cell.value) for cell in row)
    return buffer.getvalue()


def plain(value: str | int | float) -> str | int | float:
    """A value that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def to_markdown(table: Table) -> str:
    """The printed columns, padded so that the source is readable as well."""
    cells = [[markdown(table.columns[index].header) for index in table.printed]]
    cells += [[_markdown(row[index]) for index in table.printed] for row in table.rows]
    widths = [max(3, *(len(row[position]) for row in cells)) for position in range(len(table.printed))]
    right = [table.columns[index].align == "r" for index in table.printed]
    lines = [_padded(row, widths, right) for row in cells]
    rule = [("-" * (width - 1) + ":") if last else "-" * width for width, last in zip(widths, right, strict=True)]
    return "\n".join([lines[0], f"| {' | '.join(rule)} |", *lines[1:], "", markdown(table.caption), ""])


def to_latex(table: Table) -> str:
    r"""The printed columns as a float with booktabs rules; needs `\usepackage{booktabs}`."""
    columns = "".join(table.columns[index].align for index in table.printed)
    header = " & ".join(latex(table.columns[index].header) for index in table.printed)
    rows = [" & ".join(_latex(row[index]) for index in table.printed) for row in table.rows]
    body = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table*}[t]",
        r"  \centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"  \caption{{{latex(table.caption)}}}",
        rf"  \label{{tab:{re.sub('[^A-Za-z0-9_.-]', '-', table.name)}}}",
        rf"  \begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        r"    \toprule",
        rf"    {header} \\",
        r"    \midrule",
        *(rf"    {row} \\" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table*}",
        "",
    ]
    return "\n".join(body)


LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
    "<": r"$<$",
    ">": r"$>$",
}


def latex(text: str) -> str:
    """Escape `text` for LaTeX."""
    return "".join(LATEX.get(character, character) for character in one_line(text))


MARKDOWN = {"|": r"\|", "<": "&lt;", "](": r"]\("}


def markdown(text: str) -> str:
    """Escape `text` for Markdown: it ends no cell, makes no HTML, no link and no picture."""
    text = one_line(text)
    for special, escaped in MARKDOWN.items():
        text = text.replace(special, escaped)
    return text


def _markdown(cell: Cell) -> str:
    text = markdown(cell.text)
    return f"{f'**{text}**' if cell.bold else text} {markdown(cell.interval)}".strip()


def _latex(cell: Cell) -> str:
    text = rf"\textbf{{{latex(cell.text)}}}" if cell.bold else latex(cell.text)
    return text + (rf" {{\scriptsize {latex(cell.interval)}}}" if cell.interval else "")


def _padded(row: list[str], widths: list[int], right: list[bool]) -> str:
    cells = [
        text.rjust(width) if last else text.ljust(width) for text, width, last in zip(row, widths, right, strict=True)
    ]
    return f"| {' | '.join(cells)} |"
