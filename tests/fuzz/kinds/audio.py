"""Sound files: damaged bytes, headers that lie, samples that are no numbers, other containers."""

import io
import os
import struct
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile

from ..case import Attempt
from ..mutate import bytes_changed
from ..originals import Originals

FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "float.wav": ("WAV", "FLOAT"),
}
NUMBERS = (0, 1, 2, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
WAV_FIELDS = {  # offset and struct format of each
    "size": (4, "<I"),
    "chunk": (16, "<I"),
    "format": (20, "<H"),
    "channels": (22, "<H"),
    "rate": (24, "<I"),
    "bytes per second": (28, "<I"),
    "block": (32, "<H"),
    "bits": (34, "<H"),
    "data size": (40, "<I"),
}


def make(random: Random, originals: Originals, folder: Path) -> Attempt:
    """Transcribe a sound file that is none, by itself or from a manifest."""
    form = random.choice(list(FORMATS))
    make_one = random.choice([_bytes, _bytes, _cut, _wav_field, _wav_field, _samples, _special])
    name = f"sound.{form}"
    what, invalid = make_one(random, originals, folder / name, form)
    model = str(originals.folder / "fake_qat.qst")
    if random.random() < 0.6:
        stream = ["--stream"] * (random.random() < 0.3)
        return Attempt(["transcribe", model, name, *stream], what, invalid, named=name)
    line = f'{{"audio_filepath": "{name}", "duration": 1.0, "text": "a b"}}\n'
    (folder / "m.jsonl").write_text(line)
    return Attempt(["evaluate", model, "--manifest", "m.jsonl"], f"{what}, in a manifest", invalid, named=name)


def _sound(originals: Originals, random: Random) -> tuple[np.ndarray, int]:
    samples, rate = soundfile.read(random.choice(originals.sounds), dtype="float32")
    return samples[:rate], rate


def encoded(samples: np.ndarray, rate: int, form: str) -> bytes:
    """A sound file's bytes."""
    buffer, (container, subtype) = io.BytesIO(), FORMATS[form]
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def _bytes(random: Random, originals: Originals, path: Path, form: str) -> tuple[str, bool]:
    content, what = bytes_changed(random, encoded(*_sound(originals, random), form))
    path.write_bytes(content)
    return f"{form} {what}", what in ("bytes noise", "bytes empty")


def _cut(random: Random, originals: Originals, path: Path, form: str) -> tuple[str, bool]:
    """A header that promises more than came."""
    content = encoded(*_sound(originals, random), form)
    path.write_bytes(content[: random.randrange(60, len(content) - 200)])
    return f"{form} cut short", form != "ogg"


def _wav_field(random: Random, originals: Originals, path: Path, form: str) -> tuple[str, bool]:
    content = bytearray(encoded(*_sound(originals, random), "wav"))
    field, value = random.choice(list(WAV_FIELDS)), random.choice(NUMBERS)
    offset, layout = WAV_FIELDS[field]
    struct.pack_into(layout, content, offset, value % 2 ** (8 * struct.calcsize(layout)))
    path.write_bytes(content)
    return f"wav header: {field} {value}", field in ("channels", "rate") and value == 0


def _samples(random: Random, originals: Originals, path: Path, form: str) -> tuple[str, bool]:
    """Values, lengths and rates at the edges."""
    samples, rate = _sound(originals, random)
    sounds: dict[str, tuple[Any, int, bool]] = {
        "not a number": (np.where(np.arange(len(samples)) == 5, np.float32("nan"), samples), rate, True),
        "infinite": (np.where(np.arange(len(samples)) == 5, np.float32("inf"), samples), rate, True),
        "huge": (samples * np.float32(1e30), rate, False),
        "largest": (samples * 0 + np.float32(3e38), rate, False),
        "subnormal": (samples * np.float32(1e-42), rate, False),
        "zero": (samples * 0, rate, False),
        "none": (samples[:0], rate, True),
        "one": (samples[:1], rate, False),
        "two": (samples[:2], rate, False),
        "a window": (samples[:399], rate, False),
        "rate 1": (samples[:1000], 1, False),
        "rate 11": (samples[:1000], 11, False),
        "rate 655350": (samples, 655350, False),
        "rate 2147483647": (samples, 2**31 - 1, False),
        "rate 8001": (samples, 8001, False),
        "channels": (np.stack([samples[:800]] * 7, 1), rate, False),
        "many channels": (np.stack([samples[:80]] * 1000, 1), rate, False),
    }
    kind = random.choice(list(sounds))
    values, hertz, invalid = sounds[kind]
    path.write_bytes(encoded(values, hertz, "float.wav"))
    return f"samples {kind}", invalid


def _special(random: Random, originals: Originals, path: Path, form: str) -> tuple[str, bool]:
    """What is no regular file."""
    how = random.choice(["folder", "fifo", "dangling link", "loop", "device", "absent", "headerless"])
    match how:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "dangling link":
            path.symlink_to("nowhere")
        case "loop":
            path.symlink_to(path.name)
        case "device":
            path.symlink_to("/dev/zero")
        case "headerless":
            path.write_bytes(random.randbytes(4000))
    return f"audio is a {how}", True
