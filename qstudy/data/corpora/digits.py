"""Connected digits from the Free Spoken Digit Dataset: single recordings joined to strings, real speech.

The dataset (Jakobovski, github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0) holds recordings
`{digit}_{speaker}_{index}.wav` at 8 kHz; its own test split is index 0-4. Dev strings are made of the recordings 0-1,
test strings of 2-4, training strings of the rest; no digit string of dev or test is in another split.

A string has one speaker, 3 to 7 digits, random gaps and gain. Training strings are random; dev and test strings too,
or numbers as people say them (`numbers`): a shift that language models are there for. Dev and test stay close to the
recordings; training strings vary far more, so that few speakers train for many:

Unheard speakers, for leaving one out, have strings of their own: of their recordings 0-4, or of all. With `synthetic`,
voices of espeak-ng say as many training strings more as that: few speakers train for everybody, with their help.

Strings of a speaker share recordings, so that their errors are alike, and a bootstrap must not draw them one by one.
They take any recordings that their speaker has in the split: all are connected, and the group is the speaker. Five
speakers are few to draw from. With `takes`, strings that are not for training take one recording of each digit, a
speaker's next string the next, and so on in turn: recordings are used alike (of 500, in 500 strings, two or three not
at all), and strings share them within small groups alone, say those of a speaker's second recordings of all digits.
The manifest names these groups: three per speaker in test, fifty of a speaker all of whose recordings are used.

| | dev, test | train |
|---|---|---|
| silence before, between, after | 50-250, 30-250, 50-250 ms | 0-350 ms |
| voice | as recorded | three strings in four: speed and pitch times 0.85-1.2 |
| microphone, room | as recorded | half: coloured; a quarter: echo |
| noise | faint white, standard deviation 0.0002-0.003 | the same; on 60 % white, pink, hum or babble, 5-35 dB |
| level | peak 0.3-0.9 | peak 0.05-0.9, digits of a string up to 4 dB apart |
"""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from qstudy.data.audio import read_audio, read_native, write_flac
from qstudy.data.corpora.corpus import (
    MOST,
    UNSAID,
    begin,
    finish,
    make_once,
    require_counts,
    require_folder,
    require_seed,
)
from qstudy.data.corpora.digit_sound import DigitString, Render, Voice, render_clean, render_varied
from qstudy.data.corpora.digit_voices import speak_digits
from qstudy.data.corpora.espeak import speakers
from qstudy.data.corpora.numbers import draw_number
from qstudy.data.manifest import Utterance
from qstudy.errors import UserError
from qstudy.files import content_hash

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_END = 1_000_000  # more recordings of a digit than anyone has made
INDICES = {"train": range(5, _END), "dev": range(2), "test": range(2, 5), "unheard": range(5)}
TRAINING = ("train", "synthetic")
"""Splits that vary far, and in strings of any digits; the second is of espeak-ng's voices."""
SPLITS = (*INDICES, "synthetic")
SYNTHETIC_VOICES = 100
_NAME = re.compile(r"([0-9])_(.+)_([0-9]+)\.wav")
Strings = Literal["random", "numbers"]
"""Of digits: any, or numbers as people say them."""
Draw = Callable[[np.random.Generator], tuple[int, ...]]
"""A string of them."""
_THREADS = 2
_PATIENCE = 10_000  # draws in a row that were there before
_VERSION = 1  # of the recipe: raise it when the same settings make another sound


@dataclass(frozen=True)
class Recording:
    """One spoken digit."""

    digit: int
    speaker: str
    index: int
    samples: np.ndarray
    """float32 (N,)."""


@dataclass(frozen=True)
class Plan:
    """What strings are made."""

    seed: int
    counts: dict[str, int]
    """Split -> strings."""
    unheard: set[str]
    """Speakers of the split of that name."""
    unheard_all: bool
    takes: bool
    test_strings: Strings

    def indices(self, split: str) -> range:
        """Of the recordings that a split is made of."""
        return range(_END) if self.unheard_all and split == "unheard" else INDICES[split]

    def take(self, split: str, voice: Voice, number: int) -> int | None:
        """Which recording of every digit one speaker's string of this number is made of; None: any."""
        return number % max(map(len, voice.values())) if self.takes and split not in TRAINING else None


def digits(
    root: Path,
    out: Path,
    seed: int = 0,
    train: int = 6000,
    dev: int = 250,
    test: int = 500,
    unheard: list[str] | None = None,
    unheard_all: bool = False,
    takes: bool = False,
    test_strings: Strings = "random",
    synthetic: int = 0,
) -> None:
    """Make connected-digit strings, real speech, from the Free Spoken Digit Dataset.

    Args:
        root: Folder with the recordings `{digit}_{speaker}_{index}.wav`, or the dataset's folder above it.
        out: Folder for the manifests train.jsonl, dev.jsonl, test.jsonl and the FLAC files.
        seed: Same seed, same files.
        train: Number of training strings (recordings of index 5 and above).
        dev: Number of development strings (recordings of index 0-1).
        test: Number of test strings (recordings of index 2-4).
        unheard: Speakers kept out of the three; their strings go to unheard.jsonl (as many as test, index 0-4).
        unheard_all: Make these of all their recordings.
        takes: Make strings of dev, test and unheard of one recording of each digit, so that few of them share any; the
            manifest tells which do.
        test_strings: What dev, test and unheard strings are: random, as training strings always are, or numbers as
            people say them (phone numbers, dates, prices).
        synthetic: Number of training strings of a hundred voices of espeak-ng, beside those of recordings: for speakers
            whom the model has never heard.
    """
    counts = {"train": train, "dev": dev, "test": test}
    require_counts(**counts)
    require_seed(seed)
    if not 0 <= synthetic <= MOST:
        raise UserError(f"--synthetic: {synthetic} strings cannot be made; give 0 to {MOST}.")
    files = find_recordings(root)
    sizes = [[path.name, path.stat().st_size] for path in files]
    recipe: dict[str, Any] = {"corpus": "digits", "version": _VERSION, "seed": seed, **counts}
    recipe |= {"unheard": sorted(unheard or []), "recordings": content_hash(sizes)}
    later = {"unheard_all": unheard_all, "takes": takes, "test_strings": test_strings, "synthetic": synthetic}
    recipe |= {name: value for name, value in later.items() if value != UNSAID[name]}  # as in older corpora
    counts |= {"unheard": test, "synthetic": synthetic}
    plan = Plan(seed, counts, set(unheard or []), unheard_all, takes, test_strings)
    make_once(out, recipe, lambda: _make(files, out, plan, recipe))


def find_recordings(root: Path) -> list[Path]:
    """The files named like recordings in `root`, in `root/recordings`, or else anywhere under it; sorted.

    Raises:
        UserError: no such folder, or no such file.
    """
    require_folder(
        root,
        "the Free Spoken Digit Dataset (github.com/Jakobovski/free-spoken-digit-dataset): put it there, or name its "
        "folder (`qstudy data digits --root`, in a run's configuration data.make.root)",
    )
    folder = next((path for path in (root, root / "recordings") if any(path.glob("[0-9]_*_*.wav"))), root)
    files = sorted(path for path in folder.rglob("*.wav") if _NAME.fullmatch(path.name))
    if not files:
        raise UserError(
            f"--root: no file under {root} is named {{digit}}_{{speaker}}_{{index}}.wav (7_jackson_12.wav)."
        )
    return files


def load_recordings(files: Sequence[Path]) -> tuple[list[Recording], int]:
    """Read recordings, all at the sample rate (Hz) of the first.

    Raises:
        UserError: a file cannot be read.
    """
    rate = read_native(files[0])[1]
    with ThreadPoolExecutor(_THREADS) as pool:
        sounds = list(pool.map(lambda path: read_audio(path, rate), files))
    names = [_NAME.fullmatch(path.name) for path in files]
    return [Recording(int(n[1]), n[2], int(n[3]), x) for n, x in zip(names, sounds, strict=True) if n], rate


def split_voices(recordings: Sequence[Recording], plan: Plan) -> dict[str, dict[str, Voice]]:
    """Split -> speaker -> digit -> recordings; the split `unheard` exists only if speakers are kept for it.

    Raises:
        UserError: `unheard` names a stranger or leaves nobody, or a speaker lacks a digit in a split.
    """
    speakers = {item.speaker for item in recordings}
    if not plan.unheard < speakers:
        raise UserError(f"--unheard: name some, not all, of the speakers {', '.join(sorted(speakers))}.")
    who = dict.fromkeys(("train", "dev", "test"), speakers - plan.unheard)
    who |= {"unheard": plan.unheard} if plan.unheard else {}
    return {
        split: {name: _voice(recordings, name, split, plan.indices(split)) for name in sorted(who[split])}
        for split in who
    }


def draw_strings(voices: dict[str, dict[str, Voice]], plan: Plan, out: Path) -> dict[str, list[DigitString]]:
    """Draw who says what. Dev, test and unheard strings are all different, and none of them is a training string.

    Raises:
        UserError: there are not as many different ones.
    """
    taken: set[tuple[int, ...]] = set()
    strings = {}
    for split in sorted(voices, key=["dev", "test", "unheard", *TRAINING].index):
        stream = SPLITS.index(split)
        generator = np.random.default_rng([plan.seed, stream])
        draw = DRAWN["random" if split in TRAINING else plan.test_strings]
        drawn = []
        for number in range(plan.counts[split]):
            said = _draw(draw, generator, taken)
            if split not in TRAINING:
                taken.add(said)
            turn, which = divmod(number, len(voices[split]))
            speaker = list(voices[split])[which]
            audio = out / split / f"{speaker}-{number:05d}.flac"
            take = plan.take(split, voices[split][speaker], turn)
            drawn.append(DigitString(said, speaker, audio, (plan.seed, stream, number), take))
        strings[split] = drawn
    return strings


def _make(files: Sequence[Path], out: Path, plan: Plan, recipe: dict[str, Any]) -> None:
    recordings, rate = load_recordings(files)
    voices = split_voices(recordings, plan)
    if plan.counts["synthetic"]:
        with speakers(1) as pool:
            voices["synthetic"] = pool.submit(speak_digits, SYNTHETIC_VOICES, WORDS, rate, plan.seed).result()
    strings = draw_strings(voices, plan, out)
    begin(out, tuple(INDICES), [string.audio for split in strings.values() for string in split])
    made = {split: _render(split, strings[split], voices[split], rate) for split in voices}
    made["train"] += made.pop("synthetic", [])
    finish(out, made, recipe)


def _voice(recordings: Sequence[Recording], speaker: str, split: str, wanted: range) -> Voice:
    mine = [item for item in recordings if item.speaker == speaker and item.index in wanted]
    voice = {digit: [item.samples for item in mine if item.digit == digit] for digit in range(10)}
    for digit, clips in voice.items():
        if not clips:
            bounds = f"{wanted[0]} and above" if wanted.stop == _END else f"{wanted[0]}-{wanted[-1]}"
            raise UserError(f"--root: {speaker} has no recording of the digit {digit} with index {bounds} ({split}).")
    return voice


def _draw(draw: Draw, generator: np.random.Generator, taken: set[tuple[int, ...]]) -> tuple[int, ...]:
    for _ in range(_PATIENCE):
        said = draw(generator)
        if said not in taken:
            return said
    raise UserError(
        f"--dev, --test: there are hardly more than {len(taken):,} different numbers; ask for fewer strings."
    )


def draw_digits(generator: np.random.Generator) -> tuple[int, ...]:
    """A random string of 3 to 7 digits."""
    return tuple(generator.integers(0, 10, generator.integers(3, 8)).tolist())


DRAWN: dict[Strings, Draw] = {"random": draw_digits, "numbers": draw_number}
"""What draws strings of each kind."""


def spelled(digits: Sequence[int]) -> str:
    """A string of digits in words."""
    return " ".join(WORDS[digit] for digit in digits)


def _render(split: str, strings: Sequence[DigitString], voices: dict[str, Voice], rate: int) -> list[Utterance]:
    make = partial(_write, render=render_varied if split in TRAINING else render_clean, voices=voices, rate=rate)
    with ThreadPoolExecutor(_THREADS) as pool:
        jobs = pool.map(make, strings)
        return list(tqdm(jobs, f"digits: {split}", len(strings), disable=None, unit="string"))


def _write(string: DigitString, render: Render, voices: dict[str, Voice], rate: int) -> Utterance:
    samples = render(string, voices, rate)
    write_flac(string.audio, samples, rate)
    group = None if string.take is None else f"{string.speaker}-{string.take}"
    return Utterance(string.audio, len(samples) / rate, spelled(string.digits), string.speaker, group=group)
