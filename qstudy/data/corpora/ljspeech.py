"""LJ Speech (Ito and Johnson 2017, keithito.com/LJ-Speech-Dataset) to manifests; the audio stays where it is."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tqdm import tqdm

from qstudy.data.audio import duration
from qstudy.data.corpora.corpus import begin, finish, print_summary, require_counts, require_folder
from qstudy.data.corpora.text import normalize
from qstudy.data.manifest import Utterance
from qstudy.errors import UserError


def ljspeech(root: Path, out: Path, dev: int = 500, test: int = 500) -> None:
    """Turn LJ Speech's layout into the manifests train.jsonl, dev.jsonl and test.jsonl.

    Args:
        root: LJ Speech's folder: metadata.csv beside wavs/.
        out: Folder for the manifests.
        dev: Number of development utterances; which ones depends on their names alone.
        test: Number of test utterances.
    """
    require_folder(root, "metadata.csv and wavs/")
    require_counts(dev=dev, test=test)
    lines = read_metadata(root)
    if len(lines) <= dev + test:
        raise UserError(
            f"--dev, --test: {dev} + {test} of {len(lines)} utterances leave none to train on; ask for fewer."
        )
    with ThreadPoolExecutor(2) as pool:
        read = pool.map(partial(_utterance, root.resolve()), lines)
        utterances = list(tqdm(read, "ljspeech", len(lines), disable=None, unit="file"))
    ranked = sorted(utterances, key=lambda item: hashlib.sha256(item.audio.stem.encode()).digest())
    splits = {"test": ranked[:test], "dev": ranked[test : test + dev], "train": ranked[test + dev :]}
    begin(out, list(splits))
    by_name = {split: sorted(items, key=lambda item: item.audio.name) for split, items in splits.items()}
    finish(out, by_name, {"corpus": "ljspeech", "root": str(root.resolve()), "dev": dev, "test": test})
    print_summary(out)


def read_metadata(root: Path) -> list[tuple[str, str, str]]:
    """(`metadata.csv:line`, name, text as spoken) for every line `LJ001-0001|as printed|as spoken`.

    Raises:
        UserError: the file is missing or a line malformed.
    """
    path = root / "metadata.csv"
    try:
        rows = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--root: cannot read {path} ({error}).") from error
    found = []
    for number, row in enumerate(rows, 1):
        name, *texts = row.split("|")
        if not texts or not normalize(texts[-1]):
            raise UserError(f"{path}:{number}: expected name|text as printed|text as spoken, found {row!r}.")
        found.append((f"{path}:{number}", name, texts[-1]))
    return found


def _utterance(root: Path, line: tuple[str, str, str]) -> Utterance:
    source, name, text = line
    audio = root / "wavs" / f"{name}.wav"
    try:
        return Utterance(audio, duration(audio), normalize(text), speaker="linda")
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
