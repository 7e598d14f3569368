"""Feature cache: exact, quick to open again, and believed only when whole; built by several, killed, damaged."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from qstudy.data.audio import read_audio
from qstudy.data.cache import FeatureSet, mean_std
from qstudy.data.features import FeatureSettings, Filterbank, extract
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
    return [path for path in (manifest.parent / "cache").iterdir() if path.is_dir()]


def assert_equal(features: FeatureSet, others: FeatureSet) -> None:
    assert features.texts == others.texts
    for item in range(len(others)):
        np.testing.assert_array_equal(features.frames(item), others.frames(item))


def test_exactly_what_extract_makes(manifest: Path) -> None:
    features = opened(manifest)
    assert features.texts == TEXTS
    assert features.labels == [CharTokenizer().encode(text) for text in TEXTS]
    for item, utterance in enumerate(features.utterances):
        whole = extract(Filterbank(SETTINGS), torch.from_numpy(read_audio(utterance.audio)))
        assert features.frames(item).dtype == np.float32
        np.testing.assert_array_equal(features.frames(item), whole.numpy())
    assert features.lengths.tolist() == [len(features.frames(item)) for item in range(5)]
    assert features.duration_s == pytest.approx(sum(features.lengths) / 100)


def test_opened_again_without_decoding(manifest: Path) -> None:
    first = opened(manifest)
    for utterance in first.utterances:  # same size and time, no sound
        status = utterance.audio.stat()
        utterance.audio.write_bytes(bytes(status.st_size))
        os.utime(utterance.audio, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert_equal(opened(manifest), first)


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


@pytest.mark.parametrize("damage", ["cut", "flip", "no features", "no index", "not json", "other index", "empty"])
def test_damage_is_noticed_and_mended(manifest: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    whole = [opened(manifest).frames(item).copy() for item in range(5)]
    (store,) = stores(manifest)
    data, index = store / "features.i16", store / "index.json"
    if damage == "cut":
        data.write_bytes(data.read_bytes()[:-160])
    elif damage == "flip":
        content = bytearray(data.read_bytes())
        content[1000] ^= 1
        data.write_bytes(content)
    elif damage == "other index":
        entry = json.loads(index.read_text())
        entry["index"]["lines"].reverse()
        index.write_text(json.dumps(entry))
    elif damage == "not json":
        index.write_text(index.read_text()[:50])
    elif damage == "empty":
        shutil.rmtree(store)
        store.mkdir()
    else:
        (data if damage == "no features" else index).unlink()
    again = opened(manifest)
    assert "is damaged" in caplog.text
    for item, frames in enumerate(whole):
        np.testing.assert_array_equal(again.frames(item), frames)
    caplog.clear()
    opened(manifest)
    assert not caplog.text


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
        assert opened(manifest, skip_broken=True).texts == TEXTS
        assert all(f"{manifest}:{line}: " in caplog.text for line in (6, 7, 8))
    with pytest.raises(UserError, match="'4'"):  # also from the cache
        opened(manifest)


def test_the_tokenizer_may_change(manifest: Path) -> None:
    opened(manifest)
    other = CharTokenizer(" efghinorstuvwx")
    features = FeatureSet.open(manifest, SETTINGS, CharTokenizer("thre"), manifest.parent / "cache", skip_broken=True)
    assert features.texts == ["three"]
    assert FeatureSet.open(manifest, SETTINGS, other, manifest.parent / "cache").labels != opened(manifest).labels
    assert len(stores(manifest)) == 1
    with pytest.raises(UserError, match="outside"):
        FeatureSet.open(manifest, SETTINGS, CharTokenizer("x"), manifest.parent / "cache", skip_broken=True)


def test_folder_that_cannot_be_written(manifest: Path) -> None:
    (manifest.parent / "file").touch()
    with pytest.raises(UserError, match="Cannot write the feature cache"):
        FeatureSet.open(manifest, SETTINGS, CharTokenizer(), manifest.parent / "file" / "cache")


OPEN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from qstudy.data.cache import FeatureSet
from qstudy.data.features import FeatureSettings
from qstudy.data.tokenizer import CharTokenizer
features = FeatureSet.open(Path(sys.argv[1]), FeatureSettings(), CharTokenizer(), Path(sys.argv[2]))
print(len(features), float(features.frames(len(features) - 1).sum()))
"""


def opener(manifest: Path) -> "subprocess.Popen[str]":
    """Another process that opens the manifest's features."""
    command = [
        sys.executable,
        "-c",
        OPEN,
        str(manifest),
        str(manifest.parent / "cache"),
        str(Path(__file__).parents[1]),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_builder_and_two_at_once(manifest: Path) -> None:
    line = {"audio_filepath": "long.wav", "duration": 8, "text": "one"}
    soundfile.write(manifest.parent / "long.wav", np.random.default_rng(0).standard_normal(128_000) * 0.1, 16000)
    written(manifest, [line] * 128)
    killed = opener(manifest)
    cache = manifest.parent / "cache"
    while not (started := list(cache.glob(".*.tmp/features.i16"))) or not started[0].stat().st_size:
        assert killed.poll() is None
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not list(cache.glob("[!.]*/index.json"))
    both = [opener(manifest), opener(manifest)]
    answers = [process.communicate()[0] for process in both]
    assert answers[0] == answers[1] == f"128 {float(opened(manifest).frames(127).sum())}\n"
    assert len(stores(manifest)) == 1
