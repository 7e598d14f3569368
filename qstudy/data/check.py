"""The check before training: what makes a line of a manifest unusable, told by file and line."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from qstudy.data.audio import read_native, require_file
from qstudy.data.manifest import Line, Utterance, parse_line
from qstudy.data.tokenizer import Tokenizer
from qstudy.errors import UserError

SHORTEST = 0.1  # seconds; less holds no word
_TOLERANCE = 0.1  # seconds, or 2 % if that is more, by which a manifest's duration may be off


@dataclass(frozen=True)
class Problem:
    """Why one line cannot be trained on."""

    line: int
    """Its number in the manifest."""
    message: str
    """One sentence."""


def text_problems(manifest: Path, lines: Sequence[Line], tokenizer: Tokenizer) -> list[Problem]:
    """What can be told without reading audio: malformed lines, texts outside the tokenizer's labels, missing files."""
    found = []
    for line in tqdm(lines, desc="check", unit="line", disable=None, leave=False, delay=2):
        try:
            utterance = checked_line(manifest, line)
            tokenizer.encode(utterance.text)
            require_file(utterance.audio)
        except UserError as error:
            found.append(problem(manifest, line, error))
    return found


def checked_line(manifest: Path, line: Line) -> Utterance:
    """The utterance of a line.

    Raises:
        UserError: the line is malformed, or its text is empty.
    """
    utterance = parse_line(line, manifest)
    if not utterance.text:
        raise UserError("text is empty; every utterance needs its words.")
    return utterance


def checked_audio(utterance: Utterance) -> tuple[np.ndarray, int]:
    """Read an utterance's sound file: samples, float32 (N,), and their rate, Hz.

    Raises:
        UserError: the file cannot be read (`read_native`), is too short or silent, or lasts longer or shorter than the
            manifest says.
    """
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
    return samples, rate


def still_broken(manifest: Path, lines: Sequence[Line], numbers: Collection[int]) -> bool:
    """Whether all lines of these numbers have a problem: who could not open a sound file may be able to now."""
    return not numbers or not any(_is_sound(manifest, line) for line in lines if line.number in numbers)


def _is_sound(manifest: Path, line: Line) -> bool:
    try:
        checked_audio(checked_line(manifest, line))
    except UserError:
        return False
    return True


def problem(manifest: Path, line: Line, error: UserError) -> Problem:
    """What an error says of a line."""
    return Problem(line.number, str(error).removeprefix(f"{manifest}:{line.number}: "))


def require_sound(manifest: Path, problems: Sequence[Problem], shown: int = 10) -> None:
    """Raise UserError that lists the first `shown` problems of a manifest, if there are any."""
    if not problems:
        return
    listed = "\n".join(f"  {manifest}:{problem.line}: {problem.message}" for problem in problems[:shown])
    more = f"\n  ... and {len(problems) - shown} more" if len(problems) > shown else ""
    mend = "mend them, or set skip_broken to leave them out"
    raise UserError(f"{manifest}: {len(problems)} of its lines cannot be used; {mend}.\n{listed}{more}")
