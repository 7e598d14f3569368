"""Voice-assistant commands spoken by espeak-ng: a synthesized stand-in for speech that anyone can make anywhere.

Sentences come from `grammar`, voices are an accent and a variant of espeak-ng (`en-us+m3`) at random rates, pitches
and melodies. Test sentences and test voices are in no other split; dev sentences are held out too, dev voices are those
of training. Utterances are made in blocks, each by a freshly loaded synthesizer, and everything random about one is
seeded by its number: the same seed gives the same bytes, however many processes work.
"""

import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le
from tqdm import tqdm

from qstudy.data.audio import resample, write_flac
from qstudy.data.corpora import channel, noise
from qstudy.data.corpora.corpus import UNSAID, begin, finish, make_once, require_counts, require_seed
from qstudy.data.corpora.espeak import Espeak, speakers
from qstudy.data.corpora.grammar import Domain, distinct_sentences
from qstudy.data.corpora.voices import ACCENTS, TEST_VARIANTS, TRAIN_VARIANTS
from qstudy.data.manifest import Utterance
from qstudy.errors import UserError
from qstudy.fields import checked

SAMPLE_RATE = 16000
SPLITS = ("train", "dev", "test")
_BLOCK = 20  # utterances per loading of the synthesizer: long enough to be cheap, and the voices of a babble
_VERSION = 1  # of the recipe: raise it when the same settings make another sound


@dataclass(frozen=True)
class Block:
    """Some utterances of one split, made together."""

    split: str
    first: int
    """Number of the first one in its split."""
    sentences: tuple[str, ...]
    out: Path
    seed: int
    noisy: float

    @property
    def audio(self) -> list[Path]:
        """Where the utterances go."""
        numbers = range(self.first, self.first + len(self.sentences))
        return [self.out / self.split / f"{number:06d}.flac" for number in numbers]


def commands(
    out: Path,
    seed: int = 0,
    train: int = 4000,
    dev: int = 300,
    test: int = 300,
    noisy: float = 0.6,
    domain: Domain = "all",
    test_domain: Domain | None = None,
    shared: float = 0.0,
    processes: int | None = None,
) -> None:
    """Synthesize voice-assistant commands with espeak-ng; test sentences and test voices are held out.

    Args:
        out: Folder for the manifests train.jsonl, dev.jsonl, test.jsonl and the 16 kHz FLAC files.
        seed: Same seed, same files.
        train: Number of training utterances.
        dev: Number of development utterances (new sentences, training voices).
        test: Number of test utterances (new sentences, new voices).
        noisy: Share of utterances with white, pink or babble noise at 10 to 35 dB.
        domain: Topics of the sentences: home, world (the other half), or all of them.
        test_domain: Topics of the dev and test sentences, if others: a shift that language models are there for.
        shared: Share of the training utterances that are of --test_domain all the same.
        processes: How many work at a time; default: one per CPU core. The files do not depend on it.
    """
    counts = {"train": train, "dev": dev, "test": test}
    require_counts(**counts)
    require_seed(seed)
    checked(Annotated[int, Ge(1), Le(256)] | None, processes, "--processes")
    if not 0 <= noisy <= 1:
        raise UserError(f"--noisy: {noisy} is not a share between 0 and 1.")
    if not 0 <= shared <= 1:
        raise UserError(f"--shared: {shared} is not a share between 0 and 1.")
    if shared and test_domain is None:
        raise UserError("--shared: training shares sentences with another domain only; name it with --test_domain.")
    recipe: dict[str, Any] = {"corpus": "commands", "version": _VERSION, "seed": seed, "noisy": noisy, **counts}
    domains = {"domain": domain, "test_domain": test_domain, "shared": shared}
    recipe |= {name: value for name, value in domains.items() if value != UNSAID[name]}  # as in older corpora

    def make() -> None:
        blocks = list(_blocks(out, seed, noisy, _sentences(seed, counts, domain, test_domain or domain, shared)))
        begin(out, SPLITS, [audio for block in blocks for audio in block.audio])
        made = list(_synthesize(blocks, processes or os.cpu_count() or 1))
        finish(out, {split: [item for found, item in made if found == split] for split in SPLITS}, recipe)

    make_once(out, recipe, make)


def say_block(block: Block) -> list[Utterance]:
    """Speak, mix and write the utterances of one block; a pure function of it."""
    stream = SPLITS.index(block.split)
    numbers = range(block.first, block.first + len(block.sentences))
    generators = [np.random.default_rng([block.seed, stream, number]) for number in numbers]
    variants = TEST_VARIANTS if block.split == "test" else TRAIN_VARIANTS
    voices = [f"{generator.choice(ACCENTS)}+{generator.choice(variants)}" for generator in generators]
    with Espeak(seed=int(np.random.default_rng([block.seed, stream, block.first]).integers(2**31))) as espeak:
        dry = [
            _say(espeak, sentence, voice, generator, varied=block.split == "train")
            for sentence, voice, generator in zip(block.sentences, voices, generators, strict=True)
        ]
    utterances = []
    for i, (audio, generator) in enumerate(zip(block.audio, generators, strict=True)):
        samples = _mix(dry[i], dry[:i] + dry[i + 1 :], block.noisy, generator)
        write_flac(audio, samples, SAMPLE_RATE)
        utterances.append(Utterance(audio, len(samples) / SAMPLE_RATE, block.sentences[i], voices[i]))
    return utterances


def _sentences(
    seed: int, counts: dict[str, int], domain: Domain, test_domain: Domain, shared: float
) -> dict[str, list[str]]:
    """The sentences of each split, test first: more training data leave test and dev as they are."""
    taken: set[str] = set()
    of_test = round(shared * counts["train"])
    test, dev = (
        distinct_sentences(counts[split], random.Random(f"{seed} {split}"), taken, test_domain)
        for split in ("test", "dev")
    )
    generator = random.Random(f"{seed} train")
    train = distinct_sentences(counts["train"] - of_test, generator, taken, domain)
    train += distinct_sentences(of_test, generator, taken, test_domain)
    return {"test": test, "dev": dev, "train": train}


def _blocks(out: Path, seed: int, noisy: float, sentences: dict[str, list[str]]) -> Iterator[Block]:
    for split, texts in sentences.items():
        for i in range(0, len(texts), _BLOCK):
            yield Block(split, i, tuple(texts[i : i + _BLOCK]), out, seed, noisy)


def _synthesize(blocks: Sequence[Block], processes: int) -> Iterator[tuple[str, Utterance]]:
    with tqdm(total=sum(len(b.sentences) for b in blocks), desc="commands", disable=None, unit="utterance") as bar:
        for block, utterances in zip(blocks, _map(blocks, min(processes, len(blocks) // 4)), strict=True):
            bar.update(len(utterances))
            yield from ((block.split, item) for item in utterances)


def _map(blocks: Sequence[Block], processes: int) -> Iterable[list[Utterance]]:
    """`say_block` of every block, in order; by few processes if there are few."""
    with speakers(max(1, processes)) as pool:
        yield from pool.map(say_block, blocks)


def _say(espeak: Espeak, sentence: str, voice: str, generator: np.random.Generator, varied: bool) -> np.ndarray:
    """Dry speech, float32 (N,) at SAMPLE_RATE, from its first to its last sound; `varied`: at another speed too."""
    rate, pitch, melody = (int(generator.integers(*bounds)) for bounds in ((140, 231), (25, 76), (25, 81)))
    samples = espeak.say(sentence, voice, rate, pitch, melody)
    speed = int(generator.choice([90, 96, 100, 105, 112])) if varied else 100
    samples = resample(samples, espeak.sample_rate * speed // 10, SAMPLE_RATE * 10)
    loud = np.flatnonzero(np.abs(samples) > 0.002 * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1]


def _mix(dry: np.ndarray, others: Sequence[np.ndarray], noisy: float, generator: np.random.Generator) -> np.ndarray:
    """Silence around it, noise, level."""
    before, after = (int(seconds * SAMPLE_RATE) for seconds in generator.uniform(0.05, 0.3, 2))
    samples = np.pad(dry, (before, after))
    if generator.random() < noisy:
        samples = noise.add(samples, _background(len(samples), others, generator), generator.uniform(10, 35))
    return noise.add_faint(channel.level(samples, generator, 0.1, 0.9), generator)


def _background(count: int, others: Sequence[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    kind = generator.choice(["white", "pink", "babble"])
    if kind == "babble" and others:
        return noise.babble(count, [others[int(generator.integers(len(others)))] for _ in range(3)], generator)
    return (noise.white if kind == "white" else noise.pink)(count, generator)
