"""Whether a sound file is whole: how many bytes of samples its header promises, and how many came.

libsndfile tells it of FLAC, and of an MP3 with a Xing header (others say nothing of their length); of WAV, AIFF and OGG
it reads what there is without a word. A WAV's or AIFF's chunk of samples counts, not the size of the whole file beside
it, which many writers get wrong. Who writes a WAV into a pipe cannot know its size and puts a huge one there (sox
0x7FFFF000, arecord 0x80000000, ffmpeg 0xFFFFFFFF): such a file lasts until its end, and nobody can tell whether
something is missing. Size 0 before samples is a recording that was killed. An OGG's last page says that it is the last.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

_UNKNOWN = 0x7FFFF000  # bytes; who promises as many or more has written into a pipe
_PAGE = 65536  # no OGG page is longer
_LAST = 4  # the flag of an OGG stream's last page


def is_cut_short(path: Path) -> bool:
    """Whether samples are missing at the end of a WAV, AIFF or OGG file; False for other files.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return _CHECKS.get(file.read(4), _never)(file)


def _never(file: BinaryIO) -> bool:
    return False


def _chunk_is_cut(file: BinaryIO, wanted: bytes, order: Literal["little", "big"]) -> bool:
    """Walk the chunks, each a name, its size, and as many bytes, rounded up to an even number."""
    end = file.seek(0, os.SEEK_END)
    at, size_64 = 12, 0  # after the name, the size and the kind of the whole
    while at + 8 <= end:
        file.seek(at)
        name, size, first = file.read(4), int.from_bytes(file.read(4), order), file.read(16)
        if name == b"ds64":  # of an RF64: the sizes that do not fit into 32 bits
            size_64 = int.from_bytes(first[8:], order)
        if name == wanted:
            came = end - at - 8
            promised = size_64 or (size if size < _UNKNOWN else came)
            return came < promised or (size == 0 and came > 1)
        at += 8 + size + size % 2
    return False  # libsndfile has something to say about that


def _ogg(file: BinaryIO) -> bool:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(end - _PAGE, 0))
    page = (content := file.read())[max(content.rfind(b"OggS"), 0) :]
    header = page[:27]
    if len(header) < 27 or not header[5] & _LAST:
        return True
    lengths = page[27 : 27 + header[26]]
    return len(lengths) < header[26] or len(page) < 27 + len(lengths) + sum(lengths)


_CHECKS: dict[bytes, Callable[[BinaryIO], bool]] = {
    b"RIFF": partial(_chunk_is_cut, wanted=b"data", order="little"),
    b"RF64": partial(_chunk_is_cut, wanted=b"data", order="little"),
    b"RIFX": partial(_chunk_is_cut, wanted=b"data", order="big"),
    b"FORM": partial(_chunk_is_cut, wanted=b"SSND", order="big"),
    b"OggS": _ogg,
}
