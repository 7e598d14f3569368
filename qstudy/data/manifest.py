"""Manifests: NeMo-style JSON lines, one utterance per line; the one way in for any corpus.

A line: `{"audio_filepath": "train/a.flac", "duration": 2.35, "text": "turn on the light", "speaker": "anna"}`.
`audio_filepath` is relative to the manifest's folder (or absolute), `duration` is in seconds, `speaker` and `group` are
optional, other fields are ignored. The audio may lie anywhere, `..` included: it is only ever read, as sound.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from qstudy.bootstrap import numbered
from qstudy.errors import UserError
from qstudy.files import content_hash, parse_json, refuse_endless, write_text

LONGEST_TEXT = 10_000
"""Characters of one utterance at most: more were said in an hour, or by nobody."""
LONGEST_S = 86_400.0
"""Seconds of one utterance at most: a day."""
_MIDDLE = 4096  # bytes of a sound file, an eighth of a second of a WAV at 16 kHz
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # and halves of characters


@dataclass(frozen=True)
class Utterance:
    """One recording and what is said in it."""

    audio: Path
    """The sound file."""
    duration: float
    """Seconds, as the manifest says."""
    text: str
    """Lower-case words, one space between two of them; empty if the manifest's text is."""
    speaker: str | None = None
    """Who speaks, if the manifest says so."""
    source: str = ""
    """`path/train.jsonl:17`, for error messages."""
    group: str | None = None
    """What makes the errors of some utterances alike, if the manifest says so and it is not the speaker: a room, a
    recording that they share."""


class Line(NamedTuple):
    """One line of a manifest."""

    number: int
    """From 1 on."""
    text: str
    """Not blank; whether it is well-formed is for `parse_line` to say."""


def read_manifest(path: Path) -> list[Utterance]:
    """Read every line of a manifest; no audio is opened (`qstudy.data.check` does that).

    Raises:
        UserError: the file is missing or empty, or a line is malformed; the message names file and line.
    """
    return [parse_line(line, path) for line in manifest_lines(path)]


def write_manifest(path: Path, utterances: Sequence[Utterance]) -> None:
    """Write a manifest in one step, `audio_filepath` relative to its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent.resolve()  # `..` in a relative path climbs the real folders, not the links
    write_text(path, "".join(f"{json.dumps(_entry(item, folder), ensure_ascii=False)}\n" for item in utterances))


def manifest_lines(path: Path) -> list[Line]:
    """Every line that is not blank.

    Raises:
        UserError: the manifest is missing, unreadable, or has no lines; or it is no file, which can be read only once.
    """
    refuse_endless(path)
    try:
        texts = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); a manifest is JSON lines.") from error
    except OSError as error:
        raise UserError(f"Cannot read the manifest {path}: {error.strerror or error}.") from error
    lines = [Line(number, text) for number, text in enumerate(texts, 1) if text and not text.isspace()]
    if not lines:
        raise UserError(f"The manifest {path} is empty; it needs one JSON object per line.")
    return lines


def stamps(path: Path, lines: Sequence[Line]) -> np.ndarray:
    """(lines, 2) int64: size and time (ns) of each line's sound file; -1 where there is none.

    As quick as can be, since every run does it: neither utterances nor paths are made.
    """
    return np.array([_stamp(line.text, str(path.parent)) for line in lines], np.int64)


def identity(path: Path) -> str:
    """A hash of what a manifest says and of its sound files, as `_mark` tells them apart: equal for copies, wherever
    they lie.

    Raises:
        UserError: as `manifest_lines`.
    """
    lines = manifest_lines(path)
    return content_hash([line.text for line in lines], [_mark(line.text, str(path.parent)) for line in lines])


def groups_of(path: Path, numbers: Sequence[int]) -> list[int] | None:
    """The number of each utterance's group, from 0 on; where the manifest names none, its speaker is the group.

    Args:
        path: the manifest.
        numbers: its lines that are asked for, from 1 on.

    Returns:
        None unless groups or speakers are named for all of these lines, and some of them share one.

    Raises:
        UserError: as `read_manifest`, or the manifest has lost a line.
    """
    lines = {line.number: line for line in manifest_lines(path)}
    if missing := set(numbers) - lines.keys():
        raise UserError(
            f"{path} no longer has an utterance in line {min(missing)}; start again with the manifest as it is now."
        )
    utterances = [parse_line(lines[number], path) for number in numbers]
    names = [item.group or item.speaker or "" for item in utterances]
    return numbered(names) if all(names) and len(set(names)) < len(names) else None


def parse_line(line: Line, manifest: Path) -> Utterance:
    """Turn one line of a manifest into an utterance; paths are relative to the manifest's folder.

    Raises:
        UserError: not a JSON object, or a field is missing or of the wrong kind; the message starts with `path:line`.
    """
    source = f"{manifest}:{line.number}"
    entry = parse_json(line.text.encode(), f"{source}: the line")
    if not isinstance(entry, dict):
        raise UserError(f"{source}: a line must be a JSON object with audio_filepath, duration and text.")
    if entry.get("offset"):
        raise UserError(
            f"{source}: offset: parts of files are not supported; cut the audio into one file per utterance."
        )
    audio = _printable("audio_filepath", _string(entry, "audio_filepath", source), source)
    if not audio:
        raise UserError(f"{source}: audio_filepath is empty; it must name a sound file.")
    return Utterance(
        audio=manifest.parent / audio,
        duration=_seconds(entry, source),
        text=_words(entry, source),
        speaker=_name(entry, "speaker", source),
        source=source,
        group=_name(entry, "group", source),
    )


def _stamp(text: str, folder: str) -> tuple[int, int]:
    try:
        status = os.stat(_sound(text, folder))  # noqa: PTH116
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return -1, -1  # the check says why
    return status.st_size, status.st_mtime_ns


def _sound(text: str, folder: str) -> str:
    return os.path.join(folder, json.loads(text)["audio_filepath"])  # noqa: PTH118


def _mark(text: str, folder: str) -> int | tuple[int, int]:
    """What a line's sound file is told by: the size of a FLAC file, which depends on every sample; elsewhere, where all
    sounds of one length may have one size, some bytes, too."""
    size, time_ns = _stamp(text, folder)
    if size < 0 or (sound := _sound(text, folder)).lower().endswith(".flac"):
        return size
    return size, _middle(sound, size, time_ns)


@cache
def _middle(sound: str, size: int, time_ns: int) -> int:
    """A checksum of bytes from the middle of a file, read once as long as it stays; 0 if it cannot be read."""
    try:
        if not os.path.isfile(sound):  # noqa: PTH113 (a pipe could be waited for for ever)
            return 0
        with open(sound, "rb", buffering=0) as file:  # noqa: PTH123
            file.seek(max(size - _MIDDLE, 0) // 2)
            return crc32(file.read(_MIDDLE))
    except OSError:
        return 0  # the check says why


def _entry(utterance: Utterance, folder: Path) -> dict[str, Any]:
    audio = utterance.audio.parent.resolve() / utterance.audio.name  # an audio file that is a link itself stays one
    entry = {
        "audio_filepath": Path(os.path.relpath(audio, folder)).as_posix(),
        "duration": round(utterance.duration, 4),
        "text": utterance.text,
    }
    names = {"speaker": utterance.speaker, "group": utterance.group}
    return entry | {field: name for field, name in names.items() if name is not None}


def _name(entry: dict[str, Any], field: str, source: str) -> str | None:
    name = entry.get(field)
    if not isinstance(name, str | int | None):
        raise UserError(f"{source}: {field} must be a name, not {_shown(name)}.")
    return None if name is None else str(name)


def _words(entry: dict[str, Any], source: str) -> str:
    text = " ".join(_string(entry, "text", source).lower().split())
    if len(text) > LONGEST_TEXT:
        raise UserError(f"{source}: text has {len(text)} characters; an utterance has at most {LONGEST_TEXT}.")
    return _printable("text", text, source)


def _printable(field: str, value: str, source: str) -> str:
    if found := _CONTROL.search(value):
        raise UserError(f"{source}: {field} holds the control character {found[0]!r}; remove it.")
    return value


def _string(entry: dict[str, Any], field: str, source: str) -> str:
    value = _required(entry, field, source)
    if not isinstance(value, str):
        raise UserError(f"{source}: {field} must be a string, not {_shown(value)}.")
    return value


def _seconds(entry: dict[str, Any], source: str) -> float:
    value = _required(entry, "duration", source)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST_S:
        raise UserError(f"{source}: duration must be a number of seconds, 0 to {LONGEST_S:g}, not {_shown(value)}.")
    return float(value)


def _shown(value: Any) -> str:
    """A value for an error message, however large it is."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _required(entry: dict[str, Any], field: str, source: str) -> Any:
    if field not in entry:
        raise UserError(f"{source}: the field {field} is missing.")
    return entry[field]
