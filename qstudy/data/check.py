"""The check before training: every line of a manifest, its sound file, its text; problems listed by file and line."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from qstudy.data.audio import read_native
from qstudy.data.manifest import Utterance, manifest_lines, parse_line
from qstudy.errors import UserError

if TYPE_CHECKING:  # the tokenizer brings torch's neighbours along, which a check need not load
    from qstudy.data.tokenizer import Tokenizer

SHORTEST = 0.1  # seconds; less holds no word
_TOLERANCE = 0.1  # seconds, or 2 % if that is more, by which a manifest's duration may be off
_THREADS = 2


@dataclass(frozen=True)
class Problem:
    """Why one line cannot be trained on."""

    source: str
    """`path/train.jsonl:17`."""
    message: str
    """One sentence."""

    def __str__(self) -> str:
        return f"{self.source}: {self.message}"


def check_manifest(path: Path, tokenizer: "Tokenizer | None" = None) -> tuple[list[Utterance], list[Problem]]:
    """Read a manifest, decode every sound file and encode every text.

    Args:
        path: The manifest.
        tokenizer: Texts must lie inside its alphabet; None: any text will do.

    Returns:
        The sound utterances and the problems, both in the manifest's order; every line is in exactly one of them.

    Raises:
        UserError: the manifest itself is missing or empty.
    """
    lines = list(manifest_lines(path))
    with ThreadPoolExecutor(_THREADS) as pool:  # libsndfile decodes outside Python's lock
        found = pool.map(partial(_check_line, folder=path.parent, tokenizer=tokenizer), lines)
        results = list(tqdm(found, f"check {path.name}", len(lines), disable=None, unit="file", leave=False))
    utterances = [item for item in results if isinstance(item, Utterance)]
    return utterances, [item for item in results if isinstance(item, Problem)]


def require_sound(path: Path, problems: Sequence[Problem], shown: int = 10) -> None:
    """Raise UserError that lists the first `shown` problems of the manifest `path`, if there are any."""
    if not problems:
        return
    listed = "\n".join(f"  {problem}" for problem in problems[:shown])
    more = f"\n  ... and {len(problems) - shown} more" if len(problems) > shown else ""
    mend = "mend them, or set skip_broken to leave them out"
    raise UserError(f"{path}: {len(problems)} of its lines cannot be used; {mend}.\n{listed}{more}")


def _check_line(numbered: tuple[str, str], folder: Path, tokenizer: "Tokenizer | None") -> Utterance | Problem:
    source, line = numbered
    try:
        utterance = parse_line(line, source, folder)
        _check_text(utterance.text, tokenizer)
        _check_audio(utterance)
    except UserError as error:
        return Problem(source, str(error).removeprefix(f"{source}: "))
    return utterance


def _check_text(text: str, tokenizer: "Tokenizer | None") -> None:
    if not text:
        raise UserError("text is empty; every utterance needs its words.")
    if tokenizer is not None:
        tokenizer.encode(text)


def _check_audio(utterance: Utterance) -> None:
    samples, rate = read_native(utterance.audio)
    seconds = len(samples) / rate
    if seconds < SHORTEST:
        raise UserError(
            f"The audio file {utterance.audio} is too short: {seconds:.3f} s, at least {SHORTEST} s needed."
        )
    if not np.any(samples):
        raise UserError(f"The audio file {utterance.audio} is silent: every sample is zero.")
    if abs(seconds - utterance.duration) > max(_TOLERANCE, 0.02 * seconds):
        raise UserError(f"duration says {utterance.duration:g} s, but {utterance.audio} lasts {seconds:.2f} s.")
