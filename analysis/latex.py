"""A table as a paper prints it: LaTeX with booktabs, no wider and no higher than a page with two columns."""

import re
from collections.abc import Sequence

import pandas as pd

from analysis.tables.table import Cell, Column, Table
from analysis.text import one_line

ESCAPED = {
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
    "’": "'",
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
}
PAGE = 112  # characters of \footnotesize in a line across both columns
PROSE = 28  # characters: longer texts are wrapped
LINES = 56  # of a page, below the caption


def to_latex(table: Table) -> str:
    r"""The printed columns as floats, one per page; needs `\usepackage{array,booktabs,graphicx}`.

    Long texts are wrapped, intervals go below their numbers where there is no room beside them, and what is still too
    wide is scaled down.
    """
    cells = table.cells
    columns = [_Column(column, [row[place] for row in cells]) for place, column in enumerate(table.columns)]
    stacked = sum(column.width + 2 for column in columns) > PAGE
    rows = LINES // max(1 + stacked, *(column.lines for column in columns))
    pages = [cells[first : first + rows] for first in range(0, max(len(cells), 1), rows)]
    floats = [_float(_tabular(columns, page, stacked), _caption(table, number)) for number, page in enumerate(pages)]
    return "\n".join([r"% needs \usepackage{array,booktabs,graphicx}", *floats, ""])


class _Column:
    """How much room a column takes."""

    def __init__(self, column: Column, cells: Sequence[Cell]) -> None:
        texts = [f"{cell.text} {cell.small}".strip() for cell in cells]
        longest = max(map(len, texts), default=0)
        wraps = longest > PROSE >= max(len(word) for text in texts for word in ["", *text.split()])
        self.header = column.header
        self.lines = -(-longest // PROSE) if wraps else 1
        self.width = max(PROSE if wraps else longest, len(column.header))
        self.alignment = rf">{{\raggedright\arraybackslash}}p{{{PROSE / 2:.0f}em}}" if wraps else column.align


def latex(text: str) -> str:
    """Escape `text` for LaTeX."""
    return "".join(ESCAPED.get(character, character) for character in one_line(text))


def _caption(table: Table, page: int) -> str:
    if page:
        return r"\addtocounter{table}{-1}\caption{Continued.}"
    name = re.sub("[^A-Za-z0-9_.-]", "-", table.name)
    return rf"\caption{{{latex(table.caption)}}}\label{{tab:{name}}}"


def _tabular(columns: Sequence[_Column], rows: Sequence[Sequence[Cell]], stacked: bool) -> str:
    texts = pd.DataFrame([[_latex(cell, stacked) for cell in row] for row in rows], columns=range(len(columns)))
    texts.columns = pd.Index([latex(column.header) for column in columns])
    alignment = "".join(column.alignment for column in columns)
    return str(texts.style.hide(axis="index").to_latex(column_format=f"@{{}}{alignment}@{{}}", hrules=True)).strip()


def _float(tabular: str, caption: str) -> str:
    fitting = rf"\resizebox{{\ifdim\width>\linewidth\linewidth\else\width\fi}}{{!}}{{{tabular}}}"
    lines = [r"\begin{table*}[t]", r"\centering\footnotesize\setlength{\tabcolsep}{4pt}", caption, fitting]
    return "\n".join([*lines, r"\end{table*}"])


def _latex(cell: Cell, stacked: bool) -> str:
    text = rf"\textbf{{{latex(cell.text)}}}" if cell.bold else latex(cell.text)
    if not cell.small:
        return text
    small = rf"{{\scriptsize {latex(cell.small)}}}"
    return rf"\shortstack[r]{{{text}\\{small}}}" if stacked else f"{text} {small}"
