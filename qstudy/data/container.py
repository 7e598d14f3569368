"""Whether a sound file is whole: how many bytes of samples its header promises, and how many came.

libsndfile tells it of FLAC, and of an MP3 with a Xing header; of any other MP3 it guesses the length by the first
frame's bit rate, and reads no further than that, so that its frames are counted here. Of WAV, AIFF and OGG it reads
what there is without a word. A WAV's or AIFF's chunk of samples counts, not the size of the whole file beside
it, which many writers get wrong. Who writes a WAV into a pipe cannot know its size and puts a huge one there (sox
0x7FFFF000, arecord 0x80000000, ffmpeg 0xFFFFFFFF): such a file lasts until its end, and nobody can tell whether
something is missing. Size 0 before samples is a recording that was killed. An OGG's last page says that it is the last.
"""

import mmap
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

_UNKNOWN = 0x7FFFF000  # bytes; who promises as many or more has written into a pipe
_PAGE = 65536  # no OGG page is longer
_LAST = 4  # the flag of an OGG stream's last page
_MPEG_1, _LAYER_3 = 3, 1  # as an MP3 frame's header has them; versions 2 and 0 are MPEG 2 and 2.5
_HERTZ = {_MPEG_1: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBPS_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_ID3 = 10  # bytes of an ID3v2 tag's header, whose last four are the size of the rest, seven bits each


def is_cut_short(path: Path) -> bool:
    """Whether samples are missing at the end of a WAV, AIFF or OGG file; False for other files.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return _CHECKS.get(file.read(4), _never)(file)


def mp3_samples(path: Path) -> int | None:
    """Samples of each channel in an MP3 file's frames; None if its header says how many, or they are not of layer III.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = found = 0
        if content[:3] == b"ID3":
            at = _ID3 + sum((byte & 127) << 7 * place for place, byte in enumerate(reversed(content[6:_ID3])))
        while (at := content.find(b"\xff", at)) >= 0:
            size, samples = _mp3_frame(content[at : at + 4])
            if not samples or not (at + size == len(content) or _mp3_frame(content[at + size : at + size + 4])[1]):
                at += 1  # no frame, or none that another follows: part of a tag
                continue
            if not found and _has_length(content[at : at + size]):
                return None
            at, found = at + size, found + samples
        return found or None


def _mp3_frame(header: bytes) -> tuple[int, int]:
    """Size in bytes and samples of the frame of layer III that begins with these four bytes; (0, 0): none does."""
    bits = int.from_bytes(header, "big")
    version, layer, rate, hertz = bits >> 19 & 3, bits >> 17 & 3, bits >> 12 & 15, bits >> 10 & 3
    if bits >> 21 != 0x7FF or version not in _HERTZ or layer != _LAYER_3 or rate in (0, 15) or hertz == 3:
        return 0, 0
    kbps, samples = (_KBPS_1, 1152) if version == _MPEG_1 else (_KBPS_2, 576)
    padding = bits >> 9 & 1
    return samples // 8 * kbps[rate - 1] * 1000 // _HERTZ[version][hertz] + padding, samples


def _has_length(frame: bytes) -> bool:
    """Whether an MP3's first frame is a Xing header (called Info where the bit rate is constant) with a length."""
    at = max(frame[:44].find(name) for name in (b"Xing", b"Info"))
    return at > 0 and len(frame) > at + 7 and bool(frame[at + 7] & 1)


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
