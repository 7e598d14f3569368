"""LibriSpeech's and LJ Speech's layouts to manifests; the audio stays where it is."""

import shutil
from pathlib import Path

import pytest
import soundfile
from checked import checked

from qstudy.data.corpora.digits import WORDS
from qstudy.data.corpora.espeak import Espeak
from qstudy.data.corpora.librispeech import librispeech
from qstudy.data.corpora.ljspeech import ljspeech
from qstudy.data.corpora.text import normalize
from qstudy.data.manifest import read_manifest
from qstudy.errors import UserError

SHARED = Path(__file__).parents[2] / "shared"
SENTENCES = [f"Printing, in the “only” sense; No. {word}." for word in WORDS[:8]]


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Eight spoken sentences: wav files by number."""
    folder = tmp_path_factory.mktemp("speech")
    with Espeak(seed=0) as espeak:
        for i, text in enumerate(SENTENCES):
            soundfile.write(folder / f"{i}.wav", espeak.say(text, "en+f2"), espeak.sample_rate)
    return folder


@pytest.fixture
def libri(speech, tmp_path):
    """Two subsets, a speaker each."""
    for subset, speaker, numbers in (("dev-clean", 11, range(3)), ("test-other", 22, range(3, 8))):
        chapter = tmp_path / "LibriSpeech" / subset / str(speaker) / "7"
        chapter.mkdir(parents=True)
        names = [f"{speaker}-7-{i:04d}" for i in numbers]
        for i, name in zip(numbers, names, strict=True):
            soundfile.write(chapter / f"{name}.flac", *soundfile.read(speech / f"{i}.wav"))
        lines = [f"{name} IT'S SENTENCE {WORD}\n" for name, WORD in zip(names, "ABCDEFGH", strict=False)]
        (chapter / f"{speaker}-7.trans.txt").write_text("".join(lines))
    return tmp_path / "LibriSpeech"


@pytest.fixture
def lj(speech, tmp_path):
    root = tmp_path / "LJSpeech-1.1"
    shutil.copytree(speech, root / "wavs")
    (root / "metadata.csv").write_text("".join(f"{i}|Nr. {i}|{text}\n" for i, text in enumerate(SENTENCES)))
    return root


def test_librispeech_has_one_manifest_per_subset(libri, tmp_path, capsys):
    librispeech(libri, tmp_path / "out")
    assert "test-other.jsonl" in capsys.readouterr().out
    for subset, speaker, count in (("dev-clean", "11", 3), ("test-other", "22", 5)):
        utterances = checked(tmp_path / "out" / f"{subset}.jsonl")
        assert len(utterances) == count
        assert {item.speaker for item in utterances} == {speaker}
        assert utterances[0].text == "it's sentence a"
        assert utterances[0].audio.resolve().is_relative_to(libri)


def test_librispeech_joins_its_training_subsets(libri, tmp_path):
    (libri / "dev-clean").rename(libri / "train-clean-100")
    (libri / "test-other").rename(libri / "train-other-500")
    librispeech(libri, tmp_path / "out")
    parts = [read_manifest(tmp_path / "out" / f"{name}.jsonl") for name in ("train-clean-100", "train-other-500")]
    joined = read_manifest(tmp_path / "out" / "train.jsonl")
    assert [item.audio for item in joined] == [item.audio for part in parts for item in part]


def test_one_subset_may_be_the_root(libri, tmp_path):
    librispeech(libri / "dev-clean", tmp_path / "out")
    librispeech(libri / "test-other", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jsonl")) == ["dev-clean.jsonl", "test-other.jsonl"]


def test_librispeech_names_what_is_broken(libri, tmp_path):
    transcript = libri / "dev-clean" / "11" / "7" / "11-7.trans.txt"
    (transcript.parent / "11-7-0001.flac").unlink()
    with pytest.raises(UserError, match=r"11-7\.trans\.txt:2: .*11-7-0001\.flac does not exist"):
        librispeech(libri, tmp_path / "out")
    transcript.write_text("11-7-0000\n")
    with pytest.raises(UserError, match=r"11-7\.trans\.txt:1: expected an utterance's name and its words"):
        librispeech(libri, tmp_path / "out")
    transcript.write_bytes(b"11-7-0000 CAF\xc9\n")
    with pytest.raises(UserError, match=r"cannot read .*11-7\.trans\.txt"):
        librispeech(libri, tmp_path / "out")
    transcript.unlink()
    for root, message in ((tmp_path / "none", "does not exist"), (tmp_path / "out", "no \\*.trans.txt")):
        (tmp_path / "out").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=message):
            librispeech(root, tmp_path / "out")


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
def test_real_librispeech(tmp_path):
    librispeech(SHARED / "data" / "LibriSpeech", tmp_path)
    utterances = checked(tmp_path / "test-clean.jsonl")
    assert len(utterances) == 4
    assert utterances[2].text == "he could wait no longer"
    assert utterances[2].duration == pytest.approx(2.085)


def test_ljspeech_is_split_by_name_whatever_the_order_of_its_lines(lj, tmp_path):
    ljspeech(lj, tmp_path / "a", dev=2, test=1)
    lines = (lj / "metadata.csv").read_text().splitlines()
    (lj / "metadata.csv").write_text("\n".join(reversed(lines)))
    ljspeech(lj, tmp_path / "b", dev=2, test=1)
    names = {}
    for split, count in (("train", 5), ("dev", 2), ("test", 1)):
        utterances = checked(tmp_path / "a" / f"{split}.jsonl")
        assert len(utterances) == count
        names[split] = {item.audio.stem for item in utterances}
        assert (tmp_path / "a" / f"{split}.jsonl").read_text() == (tmp_path / "b" / f"{split}.jsonl").read_text()
    assert set.union(*names.values()) == set("01234567")
    texts = [item.text for item in read_manifest(tmp_path / "a" / "train.jsonl")]
    assert all(text.startswith("printing in the only sense no ") for text in texts)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda root: (root / "wavs" / "2.wav").unlink(), r"metadata\.csv:3: The audio file .*2\.wav does not exist"),
        (lambda root: (root / "metadata.csv").write_text("0|a|b\n1\n"), r"metadata\.csv:2: expected name\|"),
        (lambda root: (root / "metadata.csv").unlink(), r"cannot read .*metadata\.csv"),
        (lambda root: (root / "metadata.csv").write_text("0|a|b\n1|c|d\n"), "1 \\+ 1 of 2 utterances leave none"),
    ],
    ids=["no wav", "short line", "no metadata", "too few"],
)
def test_ljspeech_names_what_is_broken(lj, tmp_path, broken, message):
    broken(lj)
    with pytest.raises(UserError, match=message):
        ljspeech(lj, tmp_path / "out", dev=1, test=1)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("“Don’t,” said he; the café—", "don't said he the cafe"),
        ("'Tis the prisoners' well-known wish.", "tis the prisoners well known wish"),
        ("Salt & pepper\tMr. A/B", "salt and pepper mr a b"),
        ("In 1840", "in 1840"),
        ("It is twelve:thirty...or not,he said", "it is twelve thirty or not he said"),
        ("at 5 a.m. in the U.S., 1,000 men", "at 5 am in the us 1000 men"),
        ("Straße, Æsop, Łódź, smørrebrød", "strasse aesop lodz smorrebrod"),
        ("?!", ""),
    ],
)
def test_normalized_text(written, words):
    assert normalize(written) == words
