"""Text for language models: sentences of a grammar that speech corpora are made from, or of a file, one per line.

A grammar's sentences come as often as it makes them, repeated ones included: that is what a language model is to learn.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from qstudy.data.corpora.corpus import require_seed
from qstudy.data.corpora.digits import DRAWN, Strings, spelled
from qstudy.data.corpora.grammar import Domain, sentence
from qstudy.data.corpora.text import normalize
from qstudy.data.manifest import read_manifest
from qstudy.errors import UserError
from qstudy.fields import Text, checked
from qstudy.files import refuse_endless, require_other, write_text

MOST = 10_000_000
"""Lines at most."""
DIGITS: dict[str, Strings] = {"digits": "random", "numbers": "numbers"}
"""Source -> which strings of digits it is."""
GRAMMARS = ("commands", *DIGITS)
"""Sources that never end."""
PATIENCE = 10_000
"""Sentences that may be left out, beside a hundred for each that is kept, before a grammar counts as exhausted."""


def text(
    out: Path,
    exclude: list[Path],
    source: Text = "commands",
    domain: Domain = "all",
    lines: int = 50_000,
    seed: int = 0,
) -> None:
    """Write text for language models, one sentence per line, none of them in a test set.

    Args:
        out: Text file to write.
        exclude: Manifests (.jsonl) and text files whose sentences are left out, in whatever case and punctuation,
            [corpora/commands/test.jsonl]; [] for none.
        source: `commands` or `digits`, for sentences of that corpus's grammar, `numbers`, for numbers that people say
            digit by digit, or a text file, whose lines become lower-case words.
        domain: Topics of the commands: home, world (the other half), or all of them.
        lines: How many; of a file at most as many as it has.
        seed: Same seed, same text.
    """
    checked(Annotated[int, Ge(1), Le(MOST)], lines, "--lines")
    require_seed(seed)
    if domain != "all" and source != "commands":
        raise UserError(f"--domain: only commands have domains, {source} has none; leave it out.")
    files = [] if source in GRAMMARS else [Path(source)]
    require_other(out, "--out", *exclude, *files)
    held = (line for path in exclude for line in read_sentences(path))
    taken = {form for line in held for form in (line, normalize(line))}  # lines of a source are normalized
    found, left_out = _without(_sentences(source, domain, seed), taken, lines, source)
    if not found:
        raise UserError(f"--source: {source} has no sentence that is not in a file of --exclude; name another.")
    write_text(out, "".join(f"{line}\n" for line in found))
    print(f"{out}: {len(found):,} lines, {len(set(found)):,} of them different; left out as excluded: {left_out:,}")
    print(f"Next: qstudy train-lm --text {out} --like RECOGNIZER")


def read_sentences(path: Path) -> Iterator[str]:
    """The texts of a manifest, or the lines of a text file that are not empty.

    Raises:
        UserError: the file is missing, or no such file.
    """
    if path.suffix == ".jsonl":
        yield from (utterance.text for utterance in read_manifest(path))
        return
    for _, line in numbered_lines(path):
        yield line


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not empty, with their numbers from 1 on, without spaces around them or a byte
    order mark before the first.

    Raises:
        UserError: the file is missing, cannot be read, or is not UTF-8.
    """
    refuse_endless(path)
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}; name a text file.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); convert it.") from error
    stripped = ((number, line.strip()) for number, line in enumerate(content.split("\n"), 1))
    return [(number, line) for number, line in stripped if line]


def _sentences(source: str, domain: Domain, seed: int) -> Iterator[str]:
    """A grammar's for ever, or those of a file."""
    if source == "commands":
        generator = random.Random(f"{seed} text")
        while True:
            yield sentence(generator, domain)
    if source in DIGITS:
        generator_of_digits = np.random.default_rng(
            [seed, 4]
        )  # as the synthetic split's: older texts stay what they are
        while True:
            yield spelled(DRAWN[DIGITS[source]](generator_of_digits))
    yield from filter(None, (normalize(line) for line in read_sentences(Path(source))))


def _without(sentences: Iterator[str], taken: set[str], lines: int, source: str) -> tuple[list[str], int]:
    """The first `lines` sentences that are not taken, and how many were."""
    found: list[str] = []
    left_out = 0
    for each in sentences:
        if each not in taken:
            found.append(each)
        elif (left_out := left_out + 1) > PATIENCE + len(found) * 100 and source in GRAMMARS:
            raise UserError(f"--exclude: nearly all sentences of {source} are in these files; name fewer of them.")
        if len(found) == lines:
            break
    return found, left_out
