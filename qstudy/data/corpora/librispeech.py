"""LibriSpeech (Panayotov et al. 2015, openslr.org/12) to manifests: one per subset; the audio stays where it is."""

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from qstudy.data.audio import duration
from qstudy.data.corpora.corpus import begin, finish, print_summary, require_folder
from qstudy.data.manifest import Utterance
from qstudy.errors import UserError


def librispeech(root: Path, out: Path) -> None:
    """Turn LibriSpeech's layout into one manifest per subset (test-clean.jsonl ...), and train.jsonl: all of train-*.

    Args:
        root: LibriSpeech's folder, or one subset of it: SUBSET/SPEAKER/CHAPTER/*.trans.txt beside FLAC files.
        out: Folder for the manifests.
    """
    require_folder(root, "SUBSET/SPEAKER/CHAPTER/*.trans.txt")
    transcripts = sorted(root.resolve().rglob("*.trans.txt"))
    if not transcripts:
        raise UserError(f"--root: no *.trans.txt lies under {root}; it should hold SUBSET/SPEAKER/CHAPTER/*.trans.txt.")
    subsets: dict[str, list[Utterance]] = defaultdict(list)
    with ThreadPoolExecutor(2) as pool:
        chapters = pool.map(lambda path: list(read_chapter(path)), transcripts)
        for path, chapter in tqdm(
            zip(transcripts, chapters, strict=True), "librispeech", len(transcripts), disable=None
        ):
            subsets[path.parents[2].name] += chapter
    if training := [item for name in sorted(subsets) if name.startswith("train-") for item in subsets[name]]:
        subsets["train"] = training
    begin(out, list(subsets))
    finish(out, subsets, {"corpus": "librispeech", "root": str(root.resolve())})
    print_summary(out)


def read_chapter(transcript: Path) -> Iterator[Utterance]:
    """The utterances of one `*.trans.txt`: lines `1089-134686-0000 HE HOPED ...` with the FLAC files beside it.

    Raises:
        UserError: a file that cannot be read, a line without words, or a FLAC file that is missing or broken; names
            file and line.
    """
    try:
        lines = transcript.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--root: cannot read {transcript} ({error}).") from error
    for number, line in enumerate(lines, 1):
        name, _, text = line.strip().partition(" ")
        if not text:
            raise UserError(f"{transcript}:{number}: expected an utterance's name and its words, found {line!r}.")
        audio = transcript.parent / f"{name}.flac"
        try:
            seconds = duration(audio)
        except UserError as error:
            raise UserError(f"{transcript}:{number}: {error}") from error
        yield Utterance(audio, seconds, text.lower(), speaker=transcript.parents[1].name)
