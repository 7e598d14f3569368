"""N-gram models in ARPA form, plain or compressed (`.gz`): read and written over a recognizer's labels.

An n-gram is a row of codes: a label is its own number, the end of a text is 0, as the blank's column in a language
model's rows, and the start of a text is V. The format: Stolcke 2002, "SRILM", and its manual page ngram-format(5).
"""

import gzip
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from io import TextIOWrapper
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from qstudy.errors import UserError
from qstudy.files import refuse_endless, replacing

LONGEST = 20
"""Highest order that is read."""
START, END, UNKNOWN = "<s>", "</s>", "<unk>"
LARGEST = 1000.0
"""Of any logarithm; beyond, float32 would make infinities of sums."""
NEVER = -99.0
"""Log-probability that stands for none: nothing is followed by the start of a text."""
_COUNT = re.compile(r"ngram (\d{1,3})=(\d{1,12})")


class Order(NamedTuple):
    """All n-grams of one order."""

    codes: NDArray[np.int64]
    """(count, order)."""
    log10: NDArray[np.float64]
    """(count,) log10 of the probability of the last label after the others."""
    backoff: NDArray[np.float64]
    """(count,) log10 of the back-off weight; 0 where the file has none."""


class Ngrams(NamedTuple):
    """An n-gram model as it is written."""

    labels: int
    """V, labels with blank."""
    orders: list[Order]
    """From order 1 on."""
    unknown: float | None
    """log10 of the probability of what is none of the labels; None: the file has none."""


def write_arpa(path: Path, ngrams: Ngrams, names: Sequence[str]) -> None:
    """Write a model, atomically; compressed if the name ends in `.gz`.

    Args:
        path: the file.
        ngrams: the model; `unknown` is left out.
        names: of labels 1 .. V - 1 (`Tokenizer.names`).

    Raises:
        UserError: it cannot be written.
    """
    with replacing(path) as temporary, ExitStack() as files:
        file: IO[bytes] = files.enter_context(temporary.open("wb"))
        if path.suffix == ".gz":  # with neither name nor time: the same model is the same file
            file = cast(IO[bytes], files.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0)))
        lines = _lines(ngrams, [END, *names, START])
        files.enter_context(TextIOWrapper(file, encoding="utf-8")).writelines(lines)


def _lines(ngrams: Ngrams, names: Sequence[str]) -> Iterator[str]:
    yield "\\data\\\n"
    for number, order in enumerate(ngrams.orders, 1):
        yield f"ngram {number}={len(order.codes)}\n"
    for number, order in enumerate(ngrams.orders, 1):
        yield f"\n\\{number}-grams:\n"
        highest = number == len(ngrams.orders)
        for codes, log10, backoff in zip(*(part.tolist() for part in order), strict=True):
            end = "" if highest else f"\t{backoff:.7g}"
            yield f"{log10:.7g}\t{' '.join(names[code] for code in codes)}{end}\n"
    yield "\n\\end\\\n"


def read_arpa(path: Path, names: Sequence[str]) -> Ngrams:
    """Read a model over a recognizer's labels.

    Args:
        path: the file.
        names: of labels 1 .. V - 1 (`Tokenizer.names`).

    Raises:
        UserError: the file is missing, cut short or no ARPA file, or holds what is no label, such as words; the line
            is named.
    """
    refuse_endless(path)
    try:
        with _opened(path) as file:
            return _Reader(path, file, names).read()
    except FileNotFoundError as error:
        raise UserError(f"There is no language model {path}; make one with `qstudy train-lm`.") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a complete ARPA file ({error}); write it again.") from error


def _opened(path: Path) -> IO[str]:
    """The file, to be read; a byte order mark is read over."""
    return cast(IO[str], (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig"))


class _Reader:
    """A file being read, line by line."""

    def __init__(self, path: Path, lines: Iterable[str], names: Sequence[str]) -> None:
        self._path, self._lines, self._number = path, enumerate(lines, 1), 0
        self._labels = len(names) + 1
        self._codes: Mapping[str, int] = {name: code for code, name in enumerate([END, *names, START])}
        self._unknown: float | None = None

    def read(self) -> Ngrams:
        """The whole model."""
        self._skip_to("\\data\\")
        counts, line = self._counts()
        orders = []
        for number, count in enumerate(counts, 1):
            if line != f"\\{number}-grams:":
                raise self._fault(f"{line[:40]!r} stands where \\{number}-grams: should")
            order, line = self._order(number, count, number == len(counts))
            orders.append(order)
        if line != "\\end\\":
            raise self._fault(f"{line[:40]!r} stands where \\end\\ should")
        if 0 not in orders[0].codes:
            raise self._fault(f"the 1-grams lack {END}, the end of a text")
        return Ngrams(self._labels, orders, self._unknown)

    def _skip_to(self, wanted: str) -> None:
        while self._next() != wanted:
            pass

    def _next(self) -> str:
        """The next line that is not empty."""
        for number, line in self._lines:
            self._number = number
            if text := line.strip():
                return text
        raise self._fault("the file ends before \\end\\" if self._number else "the file is empty")

    def _counts(self) -> tuple[list[int], str]:
        """Number of n-grams by order, and the line after them."""
        counts: list[int] = []
        while match := _COUNT.fullmatch(line := self._next()):
            if int(match[1]) != len(counts) + 1 or len(counts) == LONGEST:
                raise self._fault(
                    f"{line!r} stands where the count of order {len(counts) + 1} should (at most {LONGEST})"
                )
            counts.append(int(match[2]))
        if not counts:
            raise self._fault(f"{line[:40]!r} stands where `ngram 1=COUNT` should")
        return counts, line

    def _order(self, number: int, count: int, highest: bool) -> tuple[Order, str]:
        """The n-grams of one order, and the line after them."""
        found: dict[tuple[int, ...], tuple[float, float]] = {}
        listed = 0
        while not (line := self._next()).startswith("\\"):
            probability, words, weight = self._fields(line, number, highest)
            listed += 1
            if any(word.lower() == UNKNOWN for word in words):  # what is no label is not asked for
                self._unknown = probability if number == 1 else self._unknown
                continue
            row = self._row(words)
            if row in found:
                raise self._fault(f"{' '.join(words)!r} occurs twice")
            found[row] = probability, weight
        if listed != count:
            raise self._fault(f"there are {listed} {number}-grams, but \\data\\ promises {count}")
        codes = np.array(list(found), np.int64).reshape(-1, number)
        weights = np.array(list(found.values()), np.float64).reshape(-1, 2)
        return Order(codes, weights[:, 0], weights[:, 1]), line

    def _fields(self, line: str, number: int, highest: bool) -> tuple[float, list[str], float]:
        """Log-probability, labels and back-off of one n-gram."""
        fields = line.split()
        if len(fields) not in (number + 1, number + 2 - highest):
            raise self._fault(f"a {number}-gram has {number} labels between a log-probability and perhaps a back-off")
        probability = self._weight(fields[0], "log-probability", most=0.0)
        weight = self._weight("".join(fields[number + 1 :]) or "0", "back-off", most=LARGEST)
        return probability, fields[1 : number + 1], weight

    def _row(self, words: Sequence[str]) -> tuple[int, ...]:
        row = tuple(self._code(word) for word in words)
        if self._labels in row[1:] or 0 in row[:-1]:
            raise self._fault(f"{START} only begins and {END} only ends an n-gram")
        return row

    def _code(self, word: str) -> int:
        if word not in self._codes:
            raise self._fault(
                f"{word[:40]!r} is not a label of the recognizer: n-grams here are over its labels (characters or "
                "pieces, a space written as \u2581), not over words"
            )
        return self._codes[word]

    def _weight(self, text: str, what: str, most: float) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not -LARGEST <= value <= most:
            raise self._fault(f"{text[:40]!r} is not a {what}")
        return value

    def _fault(self, reason: str) -> UserError:
        return UserError(f"{self._path}, line {self._number}: {reason}; write it again with `qstudy train-lm --ngram`.")
