"""Texts to labels: what language models learn from and are scored on."""

from dataclasses import dataclass
from pathlib import Path

from qstudy.data.corpora.sentences import numbered_lines
from qstudy.data.manifest import LONGEST_TEXT
from qstudy.data.tokenizer import Tokenizer
from qstudy.errors import UserError


@dataclass(frozen=True)
class Texts:
    """The lines of a file."""

    labels: list[list[int]]
    """Of each, labels 1 .. V - 1."""
    words: int
    """In all of them."""
    skipped: int
    """Lines left out, for characters that no label covers."""


def read_texts(path: Path, tokenizer: Tokenizer, skip_unknown: bool) -> Texts:
    """Encode a text file, one text per line, its words one space apart, as in manifests; empty lines are none.

    Args:
        path: the file.
        tokenizer: the recognizer's.
        skip_unknown: leave out, and count, lines with characters that no label covers.

    Raises:
        UserError: the file cannot be read or has no line left, or a line is too long or has such a character.
    """
    labels, words, skipped = [], 0, 0
    for number, line in numbered_lines(path):
        text = " ".join(line.split())
        if len(text) > LONGEST_TEXT:
            raise UserError(
                f"{path}, line {number}: {len(text):,} characters are more than {LONGEST_TEXT:,}; split it."
            )
        try:
            labels.append(tokenizer.encode(text))
            words += len(text.split())
        except UserError as error:
            if not skip_unknown:
                raise UserError(
                    f"{path}, line {number}: {error} `qstudy data text --source` makes lower-case words; "
                    "the option skip_unknown leaves such lines out."
                ) from error
            skipped += 1
    if not labels:
        raise UserError(f"{path} has no line that can be used ({skipped:,} left out); name another text file.")
    return Texts(labels, words, skipped)
