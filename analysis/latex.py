"""A table as a paper prints it: LaTeX with booktabs, no wider and no higher than a page with two columns."""

import re
from collections.abc import Sequence

import pandas as pd

from analysis.tables.table import Cell, Column, Table
from analysis.text import one_line

SPECIAL = {"\\": "textbackslash{}", "~": "textasciitilde{}", "^": "textasciicircum{}"}
ESCAPED = {character: rf"\{character}" for character in "&%$#_{}"} | {key: rf"\{name}" for key, name in SPECIAL.items()}
ESCAPED |= {
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
    "λ": r"$\lambda$",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
    "’": "'",
}
FLOAT = r"""\begin{table*}[t]
\centering\footnotesize\setlength{\tabcolsep}{4pt}
%s
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%s}
\end{table*}"""
PAGE = 112  # characters of \footnotesize in a line across both columns
PROSE = 28  # characters: longer texts are wrapped
LINES = 56  # of a page, below the caption


def to_latex(table: Table) -> str:
    r"""The printed columns as floats, one per page; needs `\usepackage{array,booktabs,graphicx}`.

    Long texts are wrapped, intervals go below their numbers where there is no room beside them, and what is still too
    wide is scaled down.
    """
    cells = table.cells
    layout = [_layout(column, [row[place] for row in cells]) for place, column in enumerate(table.columns)]
    alignments, widths, lines = zip(*layout, strict=True)
    stacked = sum(widths) + 2 * len(widths) > PAGE
    rows = max(LINES // max(1 + stacked, *lines), 1)
    texts = pd.DataFrame([[_latex(cell, stacked) for cell in row] for row in cells], columns=range(len(layout)))
    texts.columns = pd.Index([latex(column.header) for column in table.columns])
    floats = [
        FLOAT % (_caption(table, first), _tabular(texts[first : first + rows], "".join(alignments)))
        for first in range(0, max(len(cells), 1), rows)
    ]
    return "\n".join([r"% needs \usepackage{array,booktabs,graphicx}", *floats, ""])


def _layout(column: Column, cells: Sequence[Cell]) -> tuple[str, int, int]:
    """(alignment, characters in a line, lines) of a column."""
    texts = [f"{cell.text} {cell.small}".strip() for cell in cells]
    longest = max(map(len, texts), default=0)
    if longest > PROSE >= max(len(word) for text in texts for word in ["", *text.split()]):
        wrapped = rf">{{\raggedright\arraybackslash}}p{{{PROSE / 2:.0f}em}}"
        return wrapped, max(PROSE, len(column.header)), -(-longest // PROSE)
    return column.align, max(longest, len(column.header)), 1


def latex(text: str) -> str:
    """Escape `text` for LaTeX."""
    return "".join(ESCAPED.get(character, character) for character in one_line(text))


def _caption(table: Table, first: int) -> str:
    if first:
        return r"\addtocounter{table}{-1}\caption{Continued.}"
    name = re.sub("[^A-Za-z0-9_.-]", "-", table.name)
    return rf"\caption{{{latex(table.caption)}}}\label{{tab:{name}}}"


def _tabular(texts: pd.DataFrame, alignment: str) -> str:
    return str(texts.style.hide(axis="index").to_latex(column_format=f"@{{}}{alignment}@{{}}", hrules=True)).strip()


def _latex(cell: Cell, stacked: bool) -> str:
    text = rf"\textbf{{{latex(cell.text)}}}" if cell.bold else latex(cell.text)
    if not cell.small:
        return text
    small = rf"{{\scriptsize {latex(cell.small)}}}"
    return rf"\shortstack[r]{{{text}\\{small}}}" if stacked else f"{text} {small}"
