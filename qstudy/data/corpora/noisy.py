"""Noisy copies of any manifest: the same speech, texts and speakers under noise at one signal-to-noise ratio.

The signal's power is that of the speech alone, pauses left out: the mean over all stretches of 20 ms that are less than
30 dB under the loudest one; the noise's is its mean over the whole utterance. So a pause more or less does not change
how hard an utterance is. Everything random about an utterance is seeded by its number in its manifest, and does not
depend on the ratio: the copies at 0, 5 and 10 dB have the same noise at other levels.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
from annotated_types import Ge, Le
from tqdm import tqdm

from qstudy.data.audio import read_audio, read_native, write_flac
from qstudy.data.corpora import noise
from qstudy.data.corpora.corpus import begin, finish, make_once, require_seed
from qstudy.data.manifest import Utterance, identity, read_manifest
from qstudy.errors import UserError
from qstudy.fields import checked

Kind = Literal["white", "pink", "hum", "babble"]
USUAL: list[Kind] = ["white", "pink", "babble"]
VOICES = 6
"""Of a babble: so many that none can be followed."""
_THREADS = 2
_PEAK = 0.99  # of full scale: what is louder with its noise is turned down, both alike
_VERSION = 1  # of the recipe: raise it when the same settings make another sound


@dataclass(frozen=True)
class Copy:
    """How the utterances of one manifest are copied."""

    utterances: Sequence[Utterance]
    folder: Path
    """Receives the sound."""
    snr_db: float
    kinds: Sequence[Kind]
    seed: int

    @cached_property
    def speakers(self) -> np.ndarray:
        """(N,) a number for the speaker of each; all alike where the manifest tells of none."""
        return np.unique([item.speaker or "" for item in self.utterances], return_inverse=True)[1]

    def others(self, number: int) -> np.ndarray:
        """Numbers of the utterances by other speakers than one's; of all others, if there is no such speaker."""
        strangers = np.flatnonzero(self.speakers != self.speakers[number])
        return strangers if len(strangers) else np.delete(np.arange(len(self.utterances)), number)


def noisy(
    manifests: list[Path],
    out: Path,
    snr: float,
    kinds: list[Kind] | None = None,
    seed: int = 0,
) -> None:
    """Copy manifests with noise under their speech, at one signal-to-noise ratio; texts and speakers stay.

    Args:
        manifests: JSON lines, as corpora have them; their names are those of the copies.
        out: Folder for the manifests and the FLAC files, at the sample rates of the originals.
        snr: Power of the speech, without its pauses, over that of the noise, dB: -20 to 60.
        kinds: One of these for each utterance: white, pink, hum (mains), babble (six other utterances of the manifest,
            by other speakers where it tells of some). Default: [white, pink, babble].
        seed: Same seed, same files; other ratios have the same noise at another level.
    """
    checked(Annotated[float, Ge(-20), Le(60)], snr, "--snr")
    require_seed(seed)
    chosen = USUAL if kinds is None else kinds
    if not chosen or not set(chosen) <= set(get_args(Kind)):
        raise UserError(f"--kinds: name some of {', '.join(get_args(Kind))}.")
    _require_places(manifests, out)
    sources = {path.stem: identity(path) for path in manifests}
    recipe = {"corpus": "noisy", "version": _VERSION, "sources": sources, "snr": snr, "kinds": chosen, "seed": seed}

    def make() -> None:
        copies = {p.stem: Copy(read_manifest(p), out / p.stem, snr, chosen, seed) for p in manifests}
        begin(out, list(copies), [_place(copy, n) for copy in copies.values() for n in range(len(copy.utterances))])
        finish(out, {name: _write_all(name, copy) for name, copy in copies.items()}, recipe)

    make_once(out, recipe, make)


def _require_places(manifests: Sequence[Path], out: Path) -> None:
    """Raise UserError where copies would get the same names, or those of what is copied."""
    names = [path.stem for path in manifests]
    for path in manifests:
        if names.count(path.stem) > 1:
            raise UserError(
                f"{path}: another manifest has the name {path.stem} too; copy them to folders of their own."
            )
        if path.resolve().parent == out.resolve():
            raise UserError(f"--out: {path} already exists; choose another folder.")


def _place(copy: Copy, number: int) -> Path:
    return copy.folder / f"{number:06d}.flac"


def _write_all(name: str, copy: Copy) -> list[Utterance]:
    numbers = range(len(copy.utterances))
    with ThreadPoolExecutor(_THREADS) as pool:
        jobs = pool.map(partial(_write, copy), numbers)
        try:
            return list(tqdm(jobs, f"noisy: {name}", len(numbers), disable=None, unit="utterance"))
        finally:
            pool.shutdown(cancel_futures=True)


def _write(copy: Copy, number: int) -> Utterance:
    original = copy.utterances[number]
    generator = np.random.default_rng([copy.seed, number])
    try:
        samples, rate = read_native(original.audio)
        background = _background(len(samples), rate, copy, number, generator)
    except UserError as error:
        raise UserError(f"{original.source}: {error}") from error
    mixed = noise.add(samples, background, copy.snr_db, speech_power(samples, rate))
    mixed *= np.float32(min(1.0, _PEAK / max(float(np.abs(mixed).max()), _PEAK)))
    write_flac(_place(copy, number), mixed, rate)
    return replace(original, audio=_place(copy, number), duration=len(mixed) / rate)


def speech_power(samples: np.ndarray, rate: int) -> float:
    """Mean square of speech, float32 (N,), over its stretches of 20 ms that are less than 30 dB under the loudest."""
    size = max(rate // 50, 1)
    stretches = np.square(np.pad(samples, (0, -len(samples) % size))).reshape(-1, size).mean(1)
    return float(stretches[stretches > stretches.max() / 1000].mean()) if stretches.any() else 0.0


def _background(count: int, rate: int, copy: Copy, number: int, generator: np.random.Generator) -> np.ndarray:
    kind = copy.kinds[int(generator.integers(len(copy.kinds)))]
    if kind == "babble":
        return noise.babble(count, _voices(rate, copy, number, generator), generator)
    if kind == "hum":
        return noise.hum(count, rate, generator)
    return (noise.white if kind == "white" else noise.pink)(count, generator)


def _voices(rate: int, copy: Copy, number: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Other utterances of the manifest, at this sample rate."""
    others = copy.others(number)
    if not len(others):
        raise UserError("babble is made of a manifest's other utterances, and there is none; name other --kinds.")
    return [read_audio(copy.utterances[other].audio, rate) for other in generator.choice(others, VOICES)]
