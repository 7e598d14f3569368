"""The espeak-ng synthesizer through its pip wheel `espeakng-loader`: text to samples, the same every time.

espeak-ng keeps its state in static variables and draws noise for breath and friction, so what it says depends on all
that it has said before. Sound repeats bit for bit only when the library is freshly loaded, seeded once, and called in
the same order: so every `Espeak` loads the library anew and unloads it at its end. Only one can be open in a process,
and where sound must repeat, in one that does nothing else (`speakers`): some voices draw from the C library's
generator, which any thread of a program may draw from as well.
"""

import _ctypes
import ctypes
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import ModuleType
from typing import Self

import numpy as np

from qstudy.errors import UserError

# Constants of espeak-ng's speak_lib.h.
_AUDIO_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
_UTF8, _BY_CHARACTER = 1, 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_LONGEST_PATH = 150  # bytes: espeak-ng's buffer holds 160 and it fails without a word beyond that

_REINSTALL = "pip install --force-reinstall 'qstudy[speech]'"
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class _Speaker(SpawnProcess):
    """A process that does not run the user's script once more, which may have no `if __name__ == "__main__"`."""

    def start(self) -> None:
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = script


class _Speakers(SpawnContext):
    Process = _Speaker


@contextmanager
def speakers(count: int) -> Iterator[ProcessPoolExecutor]:
    """So many processes that do nothing else; they end with the block, and with the process that asked for them."""
    with ProcessPoolExecutor(count, _Speakers(), initializer=_start_speaker) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def _start_speaker() -> None:
    """Ctrl-C is the parent's business; and when the parent is killed, its workers end too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()
        os._exit(1)


class Espeak:
    """A freshly loaded synthesizer: `with Espeak(seed=1) as espeak: espeak.say("hello", "en-us+m3")`.

    Args:
        seed: Seed of its noise, 0 to 2**31 - 1.

    Raises:
        UserError: the wheel is not installed or does not work here.
    """

    def __init__(self, seed: int) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise UserError("Speech synthesis needs espeak-ng: pip install 'qstudy[speech]'.") from error
        self._folder = tempfile.TemporaryDirectory(prefix="espeak-")
        self._chunks: list[np.ndarray] = []
        self._callback = _CALLBACK(self._receive)  # kept: the library holds only a pointer to it
        try:
            self._data = _short_path(Path(espeakng_loader.get_data_path()), Path(self._folder.name))
            self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        except (OSError, RuntimeError) as error:
            raise UserError(f"espeak-ng does not load ({error}): {_REINSTALL}.") from error
        self._declare()
        options = (_AUDIO_SYNCHRONOUS, 0, str(self._data).encode(), _DONT_EXIT)
        self.sample_rate = int(self._library.espeak_Initialize(*options))
        if self.sample_rate <= 0:
            raise UserError(f"espeak-ng finds no voices in {self._data}: {_REINSTALL}.")
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_ng_SetRandSeed(seed)
        ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None).srand(seed)  # its Klatt voices draw from libc

    def say(self, text: str, voice: str, rate: int = 175, pitch: int = 50, melody: int = 50) -> np.ndarray:
        """Speak.

        Args:
            text: English words.
            voice: Accent and variant, `en-us+m3`.
            rate: Words per minute, 80 to 450.
            pitch: 0 to 100, relative to the variant's own.
            melody: 0 (monotone) to 100.

        Returns:
            float32 (N,) at `sample_rate`, full scale [-1, 1].

        Raises:
            UserError: espeak-ng knows no such voice.
        """
        variant = voice.partition("+")[2]  # an unknown one is silently replaced by the library
        known = not variant or (self._data / "voices" / "!v" / variant).is_file()
        if not known or self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(f"espeak-ng has no voice {voice}.")
        for parameter, value in ((_RATE, rate), (_VOLUME, 50), (_PITCH, pitch), (_RANGE, melody)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._chunks.clear()
        words = text.encode() + b"\0"
        code = self._library.espeak_Synth(words, len(words), 0, _BY_CHARACTER, 0, _UTF8, None, None)
        if code != 0 or not self._chunks:
            raise UserError(f"espeak-ng says nothing for {text!r} with the voice {voice} (code {code}).")
        return np.concatenate(self._chunks).astype(np.float32) / 32768

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.espeak_Terminate()
        _unload(self._library._handle)
        del self._library
        self._folder.cleanup()

    def _receive(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int) -> int:
        if samples and count > 0:  # the library reuses the buffer: copy
            self._chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0

    def _declare(self) -> None:
        integer, text, pointer = ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p
        self._library.espeak_Initialize.argtypes = [integer, integer, text, integer]
        self._library.espeak_SetSynthCallback.argtypes = [_CALLBACK]
        self._library.espeak_SetVoiceByName.argtypes = [text]
        self._library.espeak_SetParameter.argtypes = [integer, integer, integer]
        self._library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        unsigned = ctypes.c_uint
        self._library.espeak_Synth.argtypes = [
            text,
            ctypes.c_size_t,
            unsigned,
            integer,
            unsigned,
            unsigned,
            ctypes.POINTER(unsigned),
            pointer,
        ]


def _unload(handle: int) -> None:
    getattr(_ctypes, "FreeLibrary" if sys.platform == "win32" else "dlclose")(handle)


def _short_path(data: Path, folder: Path) -> Path:
    """`data`, or a link to it in `folder` when its path is too long for espeak-ng's buffer."""
    if len(str(data).encode()) <= _LONGEST_PATH:
        return data
    link = folder / data.name
    link.symlink_to(data, target_is_directory=True)
    return link
