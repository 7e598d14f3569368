"""Where a hypothesis differs from its reference, word by word."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["same", "deleted", "inserted"]


@dataclass(frozen=True)
class Piece:
    """Neighbouring words of one kind; a substitution is a deleted piece followed by an inserted one."""

    kind: Kind
    text: str


def word_differences(reference: str, hypothesis: str) -> list[Piece]:
    """Align both by the least number of edited words."""
    words = _aligned(reference.split(), hypothesis.split())
    pieces: list[Piece] = []
    for kind, word in words:
        if pieces and pieces[-1].kind == kind:
            pieces[-1] = Piece(kind, f"{pieces[-1].text} {word}")
        else:
            pieces.append(Piece(kind, word))
    return pieces


def _aligned(reference: list[str], hypothesis: list[str]) -> list[tuple[Kind, str]]:
    """Walk back through the table of edit distances."""
    distance = _distances(reference, hypothesis)
    row, column = len(reference), len(hypothesis)
    words: list[tuple[Kind, str]] = []
    while row or column:
        here = distance[row][column]
        if row and column and reference[row - 1] == hypothesis[column - 1] and here == distance[row - 1][column - 1]:
            words.append(("same", reference[row - 1]))
            row, column = row - 1, column - 1
        elif row and column and here == distance[row - 1][column - 1] + 1:
            words += [("inserted", hypothesis[column - 1]), ("deleted", reference[row - 1])]
            row, column = row - 1, column - 1
        elif row and here == distance[row - 1][column] + 1:
            words.append(("deleted", reference[row - 1]))
            row -= 1
        else:
            words.append(("inserted", hypothesis[column - 1]))
            column -= 1
    return words[::-1]


def _distances(reference: list[str], hypothesis: list[str]) -> list[list[int]]:
    table = [list(range(len(hypothesis) + 1))]
    for row, word in enumerate(reference, start=1):
        line = [row]
        for column, other in enumerate(hypothesis, start=1):
            line.append(min(table[-1][column] + 1, line[-1] + 1, table[-1][column - 1] + (word != other)))
        table.append(line)
    return table
