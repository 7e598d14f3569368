"""Feature cache: exact, quick to open again, and believed only when whole; damaged, shared, pickled."""

import errno
import json
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from qstudy.data.audio import read_audio
from qstudy.data.columns import Table, write_table
from qstudy.data.feature_set import FeatureSet, mean_std
from qstudy.data.features import FeatureSettings, Filterbank, extract
from qstudy.data.manifest import read_manifest
from qstudy.data.store import verify
from qstudy.data.tokenizer import CharTokenizer
from qstudy.errors import UserError

SETTINGS = FeatureSettings()
TEXTS = ["one two", "three", "four five six", "seven", "eight nine"]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Five utterances of noise; the second was recorded at 8 kHz."""
    generator = np.random.default_rng(0)
    lines = []
    for number, text in enumerate(TEXTS):
        rate = 8000 if number == 1 else 16000
        samples = generator.standard_normal(rate * (number + 2) // 4) * 0.1
        soundfile.write(tmp_path / f"{number}.wav", samples, rate)
        lines.append({"audio_filepath": f"{number}.wav", "duration": len(samples) / rate, "text": text})
    return written(tmp_path / "train.jsonl", lines)


def written(path: Path, lines: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def opened(manifest: Path, skip_broken: bool = False) -> FeatureSet:
    return FeatureSet.open(manifest, SETTINGS, CharTokenizer(), manifest.parent / "cache", skip_broken)


def stores(manifest: Path) -> list[Path]:
    return [path for path in (manifest.parent / "cache").glob("[!.]*") if path.is_dir()]


def assert_equal(features: FeatureSet, others: FeatureSet) -> None:
    assert list(features.texts) == list(others.texts)
    assert list(features.labels) == list(others.labels)
    for item in range(len(others)):
        np.testing.assert_array_equal(features.frames(item), others.frames(item))


def test_exactly_what_extract_makes(manifest: Path) -> None:
    features = opened(manifest)
    assert list(features.texts) == TEXTS
    assert list(features.labels) == [CharTokenizer().encode(text) for text in TEXTS]
    for item, utterance in enumerate(read_manifest(manifest)):
        whole = extract(Filterbank(SETTINGS), torch.from_numpy(read_audio(utterance.audio)))
        assert features.frames(item).dtype == np.float32
        np.testing.assert_array_equal(features.frames(item), whole.numpy())
    assert features.lengths.tolist() == [len(features.frames(item)) for item in range(5)]
    assert features.duration_s == pytest.approx(sum(features.lengths) / 100)


def test_opened_again_without_decoding(manifest: Path) -> None:
    first = opened(manifest)
    for utterance in read_manifest(manifest):  # same size and time, no sound
        status = utterance.audio.stat()
        utterance.audio.write_bytes(bytes(status.st_size))
        os.utime(utterance.audio, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert_equal(opened(manifest), first)


def test_every_sound_file_is_read_once(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[str] = Counter()

    class Counted(soundfile.SoundFile):  # type: ignore[misc]
        def __init__(self, file: Path, *arguments: Any) -> None:
            read[Path(file).name] += 1
            super().__init__(file, *arguments)

    monkeypatch.setattr(soundfile, "SoundFile", Counted)
    opened(manifest)
    assert read == {f"{number}.wav": 1 for number in range(5)}


def test_pickled_as_paths(manifest: Path) -> None:
    features = opened(manifest)
    content = pickle.dumps(features)
    assert len(content) < 1000
    assert len(content) < features.stored(0).nbytes
    again = pickle.loads(content)
    assert_equal(again, features)
    np.testing.assert_array_equal(again.lengths, features.lengths)
    np.testing.assert_array_equal(mean_std(again), mean_std(features))


def test_mean_and_deviation(manifest: Path) -> None:
    features = opened(manifest)
    mean, std = mean_std(features)
    frames = np.concatenate([features.frames(item) for item in range(len(features))]).astype(np.float64)
    np.testing.assert_allclose(mean, frames.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, frames.std(0).clip(2), rtol=1e-5)
    assert mean.dtype == std.dtype == np.float32


@pytest.mark.parametrize("change", ["text", "audio", "settings"])
def test_any_change_is_another_cache(manifest: Path, change: str) -> None:
    opened(manifest)
    if change == "text":
        manifest.write_text(manifest.read_text().replace("three", "tree"))
        assert opened(manifest).texts[1] == "tree"
    elif change == "audio":
        soundfile.write(manifest.parent / "0.wav", np.full(8000, 0.5), 16000)
        os.utime(manifest.parent / "0.wav", ns=(0, 0))
        assert (opened(manifest).frames(0)[5] == opened(manifest).frames(0)[6]).all()
    else:
        other = FeatureSet.open(manifest, FeatureSettings(bins=80), CharTokenizer(), manifest.parent / "cache")
        assert other.frames(0).shape[1] == 80
    assert len(stores(manifest)) == 2


def test_copies_that_only_sound_otherwise_have_a_cache_of_their_own(manifest: Path) -> None:
    """Where an archive or an image of a container has set all times alike, nothing else tells them apart."""
    noisy = manifest.parent / "noisy"
    noisy.mkdir()
    shutil.copy(manifest, noisy)
    for path in manifest.parent.glob("*.wav"):
        samples, rate = soundfile.read(path)
        soundfile.write(noisy / path.name, samples[::-1], rate)
        os.utime(path, (1, 1))
        os.utime(noisy / path.name, (1, 1))
    cache = manifest.parent / "cache"
    clean, other = (
        FeatureSet.open(path, SETTINGS, CharTokenizer(), cache) for path in (manifest, noisy / manifest.name)
    )
    assert not np.array_equal(clean.frames(0), other.frames(0))


DAMAGES = ["cut", "no features", "no index", "cut index", "flipped index", "nothing", "flipped labels", "cut labels"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed_and_mended(manifest: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    whole = [opened(manifest).frames(item).copy() for item in range(5)]
    (store,) = stores(manifest)
    how, _, what = damage.partition(" ")
    name = {"index": "index.*", "labels": "labels-*"}.get(what, "features.i16")
    (file,) = store.glob(name)
    if how == "cut":
        file.write_bytes(file.read_bytes()[:-160])
    elif how == "flipped":
        flip(file)
    elif how == "nothing":
        shutil.rmtree(store)
        store.mkdir()
    else:
        file.unlink()
    again = opened(manifest)
    assert "is damaged" in caplog.text
    for item, frames in enumerate(whole):
        np.testing.assert_array_equal(again.frames(item), frames)
    caplog.clear()
    opened(manifest)
    assert not caplog.text


CRAFTED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "index lengths": lambda lengths: np.array([*(-lengths[:-1]), lengths.sum() + lengths[:-1].sum()]),
    "index texts_ends": lambda ends: ends + 2**40,
    "index sums": lambda sums: sums[:-1],
    "index problems_ends": lambda ends: np.ones(1, np.int64),
    "labels-* items": lambda items: items + 1,
    "labels-* labels": lambda labels: labels + 1000,
    "labels-* labels_ends": lambda ends: ends[None],
}


@pytest.mark.parametrize("what", CRAFTED)
def test_files_that_agree_with_their_checksum_alone_are_made_again(
    manifest: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By another writer, or for another version."""
    whole = opened(manifest)
    (store,) = stores(manifest)
    name, _, column = what.partition(" ")
    (file,) = store.glob(f"{name}.safetensors")
    table = Table(file)
    write_table(file, {**table.columns, column: CRAFTED[what](table[column])}, table.metadata)
    again = opened(manifest)
    assert "is damaged" in caplog.text
    assert_equal(again, whole)


@pytest.mark.parametrize("missing", ["index lengths", "index texts", "index problem_lines", "labels-* items"])
def test_a_table_without_a_column(manifest: Path, missing: str) -> None:
    whole = opened(manifest)
    (store,) = stores(manifest)
    name, _, column = missing.partition(" ")
    (file,) = store.glob(f"{name}.safetensors")
    table = Table(file)
    write_table(file, {name: values for name, values in table.columns.items() if name != column}, table.metadata)
    assert_equal(opened(manifest), whole)


def test_utterances_that_are_shorter_than_a_window(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(3200), 16000)
    path = written(tmp_path / "m.jsonl", [{"audio_filepath": "a.wav", "duration": 0.2, "text": "one"}])
    settings = FeatureSettings(window_ms=250.0, tail_ms=0.0)
    features = FeatureSet.open(path, settings, CharTokenizer(), tmp_path / "cache")
    assert features.lengths.tolist() == [0]
    assert features.frames(0).shape == (0, settings.bins)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)


def test_every_feature_is_verified_on_demand(manifest: Path) -> None:
    opened(manifest)
    (store,) = stores(manifest)
    verify(store)
    flip(store / "features.i16")
    with pytest.raises(UserError, match=r"is damaged \(the checksum of features\.i16 differs\)"):
        verify(store)


def test_broken_utterances(manifest: Path, caplog: pytest.LogCaptureFixture) -> None:
    with manifest.open("a") as file:
        file.write('{"audio_filepath": "gone.wav", "duration": 1, "text": "ten"}\n')
        file.write('{"audio_filepath": "0.wav"\n')
        file.write('{"audio_filepath": "0.wav", "duration": 0.5, "text": "4 you"}\n')
    with pytest.raises(UserError) as first:
        opened(manifest)
    assert f"{manifest}:6: " in str(first.value)
    assert f"{manifest}:7: " in str(first.value)
    assert not stores(manifest)
    for _ in range(2):
        caplog.clear()
        assert list(opened(manifest, skip_broken=True).texts) == TEXTS
        assert all(f"{manifest}:{line}: " in caplog.text for line in (6, 7, 8))
    with pytest.raises(UserError, match="'4'"):  # also from the cache
        opened(manifest)


def unreadable(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if the system had no descriptors left when it came to these files."""

    class Failing(soundfile.SoundFile):  # type: ignore[misc]
        def __init__(self, file: Path, *arguments: Any) -> None:
            if Path(file).name in names:
                raise OSError(errno.EMFILE, "Too many open files")
            super().__init__(file, *arguments)

    monkeypatch.setattr(soundfile, "SoundFile", Failing)


@pytest.mark.parametrize("left_out", [False, True], ids=["unfinished", "left out"])
def test_a_problem_that_has_passed_is_forgotten(
    manifest: Path, left_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a build that ended with complaints, and of one that left lines out."""
    with monkeypatch.context() as patch:
        unreadable(patch, "2.wav", "3.wav")
        with pytest.raises(UserError, match=r"train\.jsonl:3: .*2\.wav cannot be decoded \(.*Too many open files"):
            opened(manifest)
        if left_out:
            assert len(opened(manifest, skip_broken=True)) == 3
    with monkeypatch.context() as patch:
        unreadable(patch, "3.wav")
        with pytest.raises(UserError, match=r"1 of its lines cannot be used.*\n.*train\.jsonl:4: "):
            opened(manifest)
    assert list(opened(manifest).texts) == TEXTS


def test_the_tokenizer_may_change(manifest: Path) -> None:
    opened(manifest)
    other = CharTokenizer(" efghinorstuvwx")
    features = FeatureSet.open(manifest, SETTINGS, CharTokenizer("thre"), manifest.parent / "cache", skip_broken=True)
    assert list(features.texts) == ["three"]
    assert list(features.labels) == [[1, 2, 3, 4, 4]]
    mean, std = mean_std(features)  # of this utterance alone
    np.testing.assert_allclose(mean, features.frames(0).astype(np.float64).mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, features.frames(0).astype(np.float64).std(0).clip(2), rtol=1e-5)
    labels = FeatureSet.open(manifest, SETTINGS, other, manifest.parent / "cache").labels
    assert list(labels) != list(opened(manifest).labels)
    assert len(stores(manifest)) == 1
    with pytest.raises(UserError, match="outside"):
        FeatureSet.open(manifest, SETTINGS, CharTokenizer("x"), manifest.parent / "cache", skip_broken=True)


def test_folder_that_cannot_be_written(manifest: Path) -> None:
    (manifest.parent / "file").touch()
    with pytest.raises(UserError, match="Cannot write the feature cache"):
        FeatureSet.open(manifest, SETTINGS, CharTokenizer(), manifest.parent / "file" / "cache")
