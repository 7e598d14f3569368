"""Connected digits: strings, splits by index, repeatable bytes; on a small dataset made here, and on the real one."""

import hashlib
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
from checked import checked
from test_numbers import every_number

from qstudy.data.audio import resample
from qstudy.data.corpora.corpus import require_recipe
from qstudy.data.corpora.digit_voices import voice_names
from qstudy.data.corpora.digits import WORDS, digits, spelled
from qstudy.data.corpora.espeak import Espeak
from qstudy.data.manifest import read_manifest
from qstudy.errors import UserError

SHARED = Path(__file__).parents[2] / "shared"
RATE = 8000
SIZES = {"train": 8, "dev": 5, "test": 5}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The dataset's layout: ten digits, two speakers, indices 0-6; synthesized."""
    folder = tmp_path_factory.mktemp("dataset") / "recordings"
    folder.mkdir()
    with Espeak(seed=0) as espeak:
        for speaker in ("anna", "bob"):
            for i in range(70):
                samples = espeak.say(WORDS[i % 10], "en+f2" if speaker == "anna" else "en+m3", pitch=30 + i // 2)
                samples = resample(samples, espeak.sample_rate, RATE)
                soundfile.write(folder / f"{i % 10}_{speaker}_{i // 10}.wav", samples, RATE)
    return folder.parent


def copy_with(dataset: Path, to: Path, change) -> Path:
    """A copy in which the recordings of which `change(index)` is true sound otherwise."""
    to.mkdir()
    for path in (dataset / "recordings").iterdir():
        samples, rate = soundfile.read(path)
        index = int(path.stem.split("_")[2])
        soundfile.write(to / path.name, samples[::-1] if change(index) else samples, rate)
    return to


def sounds(folder: Path, split: str) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((folder / split).iterdir())]


def test_same_seed_same_bytes_and_found_from_either_folder(dataset, tmp_path):
    digits(dataset, tmp_path / "a", **SIZES)
    digits(dataset / "recordings", tmp_path / "b", **SIZES)
    digits(dataset, tmp_path / "c", seed=1, **SIZES)
    for split in SIZES:
        assert sounds(tmp_path / "a", split) == sounds(tmp_path / "b", split)
        assert not set(sounds(tmp_path / "a", split)) & set(sounds(tmp_path / "c", split))
        assert (tmp_path / "a" / f"{split}.jsonl").read_text() == (tmp_path / "b" / f"{split}.jsonl").read_text()


@pytest.mark.parametrize(
    ("split", "indices"), [("train", {5, 6}), ("dev", {0, 1}), ("test", {2, 3, 4})], ids=["train", "dev", "test"]
)
def test_each_split_hears_its_own_recordings_only(dataset, tmp_path, split, indices):
    """Changing all other recordings changes nothing; changing its own changes every string."""
    digits(dataset, tmp_path / "plain", **SIZES)
    others = copy_with(dataset, tmp_path / "others", lambda index: index not in indices)
    own = copy_with(dataset, tmp_path / "own", lambda index: index in indices)
    digits(others, tmp_path / "from_others", **SIZES)
    digits(own, tmp_path / "from_own", **SIZES)
    assert sounds(tmp_path / "from_others", split) == sounds(tmp_path / "plain", split)
    assert not set(sounds(tmp_path / "from_own", split)) & set(sounds(tmp_path / "plain", split))


def test_strings_have_3_to_7_digits_one_speaker_and_are_in_one_split(dataset, tmp_path):
    digits(dataset, tmp_path, train=100, dev=30, test=30)
    texts = {}
    for split in SIZES:
        utterances = checked(tmp_path / f"{split}.jsonl")
        texts[split] = [item.text for item in utterances]
        assert {len(text.split()) for text in texts[split]} == {3, 4, 5, 6, 7}
        assert {word for text in texts[split] for word in text.split()} == set(WORDS)
        assert {item.speaker for item in utterances} == {"anna", "bob"}
        assert {soundfile.info(item.audio).samplerate for item in utterances} == {RATE}
    assert len(set(texts["dev"] + texts["test"])) == 60
    assert not set(texts["train"]) & set(texts["dev"] + texts["test"])


def test_unheard_speakers_are_only_in_their_own_manifest(dataset, tmp_path):
    digits(dataset, tmp_path, **SIZES, unheard=["bob"])
    who = {s: {u.speaker for u in read_manifest(tmp_path / f"{s}.jsonl")} for s in (*SIZES, "unheard")}
    assert who == {"train": {"anna"}, "dev": {"anna"}, "test": {"anna"}, "unheard": {"bob"}}
    digits(dataset, tmp_path, **SIZES)
    assert not (tmp_path / "unheard.jsonl").exists()


def test_all_recordings_of_unheard_speakers_in_groups_that_share_none(dataset, tmp_path):
    """Seven groups: changing the recordings of one changes the sound of its strings, and of no other."""
    given = {**SIZES, "test": 210, "unheard": ["bob"], "unheard_all": True}
    digits(dataset, tmp_path / "plain", **given, takes=True)
    utterances = checked(tmp_path / "plain" / "unheard.jsonl")
    assert [item.group for item in utterances] == [f"bob-{number % 7}" for number in range(210)]
    groups = defaultdict(set)
    for item in utterances:
        groups[item.group] |= set(item.text.split())
    assert all(said == set(WORDS) for said in groups.values())  # so that all 70 recordings are there
    for index in (0, 6):
        other = copy_with(dataset, tmp_path / f"root{index}", lambda number, index=index: number == index)
        digits(other, tmp_path / f"out{index}", **given, takes=True)
        plain, changed = sounds(tmp_path / "plain", "unheard"), sounds(tmp_path / f"out{index}", "unheard")
        differs = {item.group for item, one, two in zip(utterances, plain, changed, strict=True) if one != two}
        assert differs == {f"bob-{index}"}
        assert sum(one != two for one, two in zip(plain, changed, strict=True)) == 30
    assert {item.group for item in checked(tmp_path / "plain" / "test.jsonl")} == {"anna-0", "anna-1", "anna-2"}
    digits(dataset, tmp_path / "any", **given)
    assert {item.group for item in read_manifest(tmp_path / "any" / "unheard.jsonl")} == {None}
    assert sounds(tmp_path / "any", "train") == sounds(tmp_path / "plain", "train")
    with pytest.raises(UserError, match="takes False there, True here"):
        require_recipe(tmp_path / "any", {"corpus": "digits", "takes": True})


def test_recordings_of_unheard_speakers_are_five_of_each_digit_or_all(dataset, tmp_path):
    given = {**SIZES, "test": 70, "unheard": ["bob"]}
    last = copy_with(dataset, tmp_path / "root", lambda index: index == 6)
    for every in (False, True):
        for name, root in (("plain", dataset), ("last", last)):
            digits(root, tmp_path / f"{name}{every}", **given, unheard_all=every)
        plain, changed = (sounds(tmp_path / f"{name}{every}", "unheard") for name in ("plain", "last"))
        assert sum(one != two for one, two in zip(plain, changed, strict=True)) > 20 if every else plain == changed
    for split in SIZES:
        assert sounds(tmp_path / "plainTrue", split) == sounds(tmp_path / "plainFalse", split)


def test_numbers_are_said_in_dev_and_test_alone(dataset, tmp_path, capsys):
    sizes = {"train": 40, "dev": 20, "test": 20}
    for strings in ("random", "numbers"):
        digits(dataset, tmp_path / strings, **sizes, unheard=["bob"], test_strings=strings)
    said = {
        split: {item.text for item in read_manifest(tmp_path / "numbers" / f"{split}.jsonl")}
        for split in (*sizes, "unheard")
    }
    numbers = {spelled(number) for number in every_number()}
    assert said["dev"] | said["test"] | said["unheard"] <= numbers
    assert len(said["dev"] | said["test"] | said["unheard"]) == 60
    assert not said["train"] & (said["dev"] | said["test"] | said["unheard"])
    assert len(said["train"] & numbers) < 4
    assert "test_strings" not in json.loads((tmp_path / "random" / "corpus.json").read_text())
    for strings, other in (("random", "numbers"), ("numbers", "random")):
        require_recipe(tmp_path / strings, {"corpus": "digits", "test_strings": strings})
        with pytest.raises(UserError, match=f"test_strings {strings} there, {other} here"):
            require_recipe(tmp_path / strings, {"corpus": "digits", "test_strings": other})
    capsys.readouterr()
    digits(dataset, tmp_path / "random", **sizes, unheard=["bob"])
    assert "already holds this corpus" in capsys.readouterr().out


def test_synthetic_voices_train_beside_recordings_and_are_heard_nowhere_else(dataset, tmp_path):
    for name in ("one", "other"):
        digits(dataset, tmp_path / name, **SIZES, unheard=["bob"], synthetic=30)
    digits(dataset, tmp_path / "without", **SIZES, unheard=["bob"])
    said = {split: read_manifest(tmp_path / "one" / f"{split}.jsonl") for split in ("train", "dev", "test", "unheard")}
    train = said.pop("train")
    assert [item.speaker == "anna" for item in train] == [True] * SIZES["train"] + [False] * 30
    assert {item.speaker for item in train[SIZES["train"] :]} <= set(voice_names())
    assert len({item.speaker for item in train}) == 31
    assert {item.speaker for split in said.values() for item in split} == {"anna", "bob"}
    assert not {item.text for item in train} & {item.text for split in said.values() for item in split}
    assert sounds(tmp_path / "one", "synthetic") == sounds(tmp_path / "other", "synthetic")
    for split in (*SIZES, "unheard"):
        assert sounds(tmp_path / "one", split) == sounds(tmp_path / "without", split)
    with pytest.raises(UserError, match="synthetic 30 there, 0 here"):
        require_recipe(tmp_path / "one", {"corpus": "digits", "synthetic": 0})


def test_training_strings_vary_more_than_test_strings(dataset, tmp_path):
    digits(dataset, tmp_path, train=30, dev=1, test=20)
    peaks = {
        split: [np.abs(soundfile.read(item.audio)[0]).max() for item in read_manifest(tmp_path / f"{split}.jsonl")]
        for split in ("train", "test")
    }
    assert min(peaks["test"]) > 0.28
    assert min(peaks["train"]) < 0.2
    assert max(peaks["train"] + peaks["test"]) < 1


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda root: root.rename(root.parent / "gone"), {}, "--root: the folder .* does not exist"),
        (lambda root: [path.unlink() for path in root.iterdir()], {}, "--root: no file under .* is named"),
        (lambda root: (root / "3_bob_6.wav").write_text("x"), {}, r"3_bob_6\.wav cannot be decoded"),
        (
            lambda root: [(root / f"4_anna_{i}.wav").unlink() for i in (2, 3, 4)],
            {},
            r"anna has no recording of the digit 4 with index 2-4 \(test\)",
        ),
        (lambda root: None, {"unheard": ["carl"]}, "--unheard: name some, not all, of the speakers anna, bob"),
        (lambda root: None, {"unheard": ["anna", "bob"]}, "--unheard: name some, not all"),
        (lambda root: None, {"test": 0}, "--test: 0 utterances"),
        (lambda root: None, {"synthetic": -1}, "--synthetic: -1 strings cannot be made; give 0 to"),
        (
            lambda root: None,
            {"test": 17499, "test_strings": "numbers"},
            "hardly more than 17,4.. different",
        ),
    ],
    ids=[
        "no folder",
        "no files",
        "broken file",
        "missing digit",
        "stranger",
        "nobody left",
        "no strings",
        "less than none",
        "too many",
    ],
)
def test_bad_input_is_named_and_leaves_no_manifest(dataset, tmp_path, change, options, message):
    root = copy_with(dataset, tmp_path / "root", lambda index: False)
    change(root)
    with pytest.raises(UserError, match=message):
        digits(root, tmp_path / "out", **{**SIZES, **options})
    assert not list(tmp_path.rglob("*.jsonl"))


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
def test_the_real_dataset(tmp_path, capsys):
    digits(SHARED / "data" / "fsdd", tmp_path, train=20, dev=10, test=10)
    assert "train.jsonl" in capsys.readouterr().out
    for split, count in (("train", 20), ("dev", 10), ("test", 10)):
        utterances = checked(tmp_path / f"{split}.jsonl")
        assert len(utterances) == count
        assert {item.speaker for item in utterances} == {"george", "jackson", "lucas", "nicolas", "yweweler"}
        assert {soundfile.info(item.audio).samplerate for item in utterances} == {8000}
