"""A table as a paper prints it: LaTeX with booktabs, no wider and no higher than a page with two columns."""

import re
from collections.abc import Sequence

import pandas as pd

from analysis.tables.table import Cell, Column, Table
from analysis.text import one_line

ESCAPED = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "−": "$-$", "×": r"$\times$", "Δ": r"$\Delta$",
    "’": "'", "±": r"$\pm$", "<": r"$<$", ">": r"$>$",
}  # fmt: skip
PAGE = 105  # characters of \footnotesize in a line across both columns
PROSE = 28  # characters: longer texts are wrapped
LINES = 50  # of a page, below the caption


def to_latex(table: Table) -> str:
    r"""The printed columns as floats, one per page; needs `\usepackage{array,booktabs,graphicx}`.

    Long texts are wrapped, intervals go below their numbers where there is no room beside them, and what is still too
    wide is scaled down.
    """
    cells = table.cells
    widths = [max(PROSE // 7, len(column.header), *(_width(row[place]) for row in cells)) if cells else 0
              for place, column in enumerate(table.columns)]  # fmt: skip
    stacked = sum(min(width, PROSE) + 2 for width in widths) > PAGE
    height = max([1 + stacked, *(-(-width // PROSE) for column, width in zip(table.columns, widths, strict=True)
                                 if column.align == "l")])  # fmt: skip
    columns = "".join(map(_alignment, table.columns, widths))
    rows = LINES // height
    pages = [cells[first : first + rows] for first in range(0, max(len(cells), 1), rows)]
    floats = [_float(_tabular(table.columns, page, columns, stacked), _caption(table, number))
              for number, page in enumerate(pages)]  # fmt: skip
    return "\n".join([r"% needs \usepackage{array,booktabs,graphicx}", *floats, ""])


def latex(text: str) -> str:
    """Escape `text` for LaTeX."""
    return "".join(ESCAPED.get(character, character) for character in one_line(text))


def _width(cell: Cell) -> int:
    return len(cell.text) + (len(cell.small) + 1 if cell.small else 0)


def _alignment(column: Column, width: int) -> str:
    wrapped = rf">{{\raggedright\arraybackslash}}p{{{PROSE / 2.2:.1f}em}}"
    return wrapped if column.align == "l" and width > PROSE else column.align


def _caption(table: Table, page: int) -> str:
    if page:
        return r"\addtocounter{table}{-1}\caption{Continued.}"
    name = re.sub("[^A-Za-z0-9_.-]", "-", table.name)
    return rf"\caption{{{latex(table.caption)}}}\label{{tab:{name}}}"


def _tabular(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], alignment: str, stacked: bool) -> str:
    texts = pd.DataFrame([[_latex(cell, stacked) for cell in row] for row in rows], columns=range(len(columns)))
    texts.columns = pd.Index([latex(column.header) for column in columns])
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
