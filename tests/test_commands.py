"""Synthesized commands: the same bytes for the same seed, nothing of the test set in training, sound that is sound."""

import ctypes
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
from checked import checked

from qstudy.data.audio import read_native
from qstudy.data.corpora.commands import commands
from qstudy.data.corpora.espeak import Espeak
from qstudy.data.corpora.voices import ACCENTS, TEST_VARIANTS, TRAIN_VARIANTS
from qstudy.data.manifest import read_manifest
from qstudy.errors import UserError

ROOT = Path(__file__).parents[1]
SIZES = {"train": 101, "dev": 6, "test": 21}


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    commands(folder, **SIZES, processes=1)
    return folder


def test_same_seed_same_bytes_whatever_the_number_of_processes(made, tmp_path):
    commands(tmp_path, **SIZES, processes=2)
    assert digests(tmp_path) == digests(made)


def test_a_program_that_draws_from_the_c_library_changes_no_sound(made, tmp_path):
    """Some of espeak-ng's voices draw from it, too."""
    drawing = threading.Event()

    def draw() -> None:
        while not drawing.wait(0.0005):
            ctypes.CDLL(None).rand()

    thread = threading.Thread(target=draw)
    thread.start()
    commands(tmp_path, **SIZES, processes=1)
    drawing.set()
    thread.join()
    assert digests(tmp_path) == digests(made)


def test_a_script_needs_no_guard(made, tmp_path):
    """Processes that are started for it do not run it again."""
    made_here = f"commands(Path({str(tmp_path / 'made')!r}), **{SIZES}, processes=2)"
    lines = ("from pathlib import Path", "from qstudy.data.corpora.commands import commands", made_here)
    (tmp_path / "script.py").write_text("\n".join(lines))
    run = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert run.returncode == 0
    assert digests(tmp_path / "made") == digests(made)


def test_another_seed_is_another_corpus(made, tmp_path):
    commands(tmp_path, seed=1, train=2, dev=2, test=2, processes=1)
    here, there = digests(tmp_path), digests(made)
    assert not [name for name in here if name.endswith("flac") and here[name] == there[name]]


def test_more_training_data_leave_the_test_set_alone(made, tmp_path):
    commands(tmp_path, **{**SIZES, "train": 3}, processes=1)
    here, there = digests(tmp_path), digests(made)
    assert {n: here[n] for n in here if "test" in n or "dev" in n} == {
        n: there[n] for n in there if "test" in n or "dev" in n
    }


def test_sentences_and_voices_of_the_test_set_are_held_out(made):
    splits = {name: read_manifest(made / f"{name}.jsonl") for name in SIZES}
    assert {name: len(items) for name, items in splits.items()} == SIZES
    texts = [item.text for items in splits.values() for item in items]
    assert len(set(texts)) == len(texts)
    variants = {name: {item.speaker.split("+")[1] for item in items} for name, items in splits.items()}
    assert variants["test"] <= set(TEST_VARIANTS)
    assert variants["train"] | variants["dev"] <= set(TRAIN_VARIANTS)
    assert not set(TEST_VARIANTS) & set(TRAIN_VARIANTS)


def test_all_files_pass_the_check_and_are_audible(made):
    for name in SIZES:
        utterances = checked(made / f"{name}.jsonl")
        for item in utterances:
            samples, rate = read_native(item.audio)
            assert rate == 16000
            assert 0.09 < np.abs(samples).max() < 1
            assert 3 < len(item.text) / item.duration < 40


def test_a_corpus_that_is_there_is_not_made_again(made, capsys):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*.flac")}
    commands(made, **SIZES)
    assert "already holds this corpus" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in made.rglob("*.flac")}


def test_two_who_make_the_same_corpus_make_it_once(tmp_path):
    """At once, from two shells: the second one waits, and finds it there."""
    command = [sys.executable, "-m", "qstudy", "data", "commands", "--out", str(tmp_path / "commands")]
    options = ["--train", "2", "--dev", "2", "--test", "2", "--processes", "1"]
    makers = [subprocess.Popen([*command, *options], stdout=PIPE, stderr=PIPE, text=True) for _ in range(2)]
    said = [maker.communicate() for maker in makers]
    assert [maker.returncode for maker in makers] == [0, 0], said
    assert sum("already holds this corpus" in out for out, _ in said) == 1
    assert len(read_manifest(tmp_path / "commands" / "train.jsonl")) == 2


def test_an_interrupted_corpus_has_no_manifest_and_is_made_again(tmp_path, monkeypatch):
    commands(tmp_path, train=2, dev=2, test=2, processes=1)
    with monkeypatch.context() as broken:
        broken.setattr("qstudy.data.corpora.commands._map", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            commands(tmp_path, train=3, dev=2, test=2, processes=1)
    assert not list(tmp_path.glob("*.jsonl"))
    commands(tmp_path, train=3, dev=2, test=2, processes=1)
    assert len(read_manifest(tmp_path / "train.jsonl")) == 3


def test_summary_names_every_split(made, capsys):
    commands(made, **SIZES)
    out = capsys.readouterr().out
    assert all(f"{name}.jsonl" in out for name in SIZES)
    assert "101" in out
    assert "Next:" in out


def test_noise_share_is_kept(tmp_path):
    """Without noise the pauses are faint; with it on every utterance they are not."""
    floors = {}
    for noisy in (0.0, 1.0):
        commands(tmp_path / str(noisy), train=20, dev=1, test=1, noisy=noisy, processes=1)
        sounds = [read_native(item.audio)[0] for item in read_manifest(tmp_path / str(noisy) / "train.jsonl")]
        floors[noisy] = np.mean([np.sqrt(np.mean(sound[:800] ** 2)) / np.abs(sound).max() for sound in sounds])
    assert floors[1.0] > 2 * floors[0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"train": 0}, "--train: 0 utterances"), ({"noisy": 1.5}, "--noisy: 1.5 is not a share")],
    ids=["count", "share"],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        commands(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["dev.jsonl", "corpus.json", "train/000000.flac", "train/000002.flac"])
def test_what_was_made_elsewhere_is_not_overwritten(tmp_path, name):
    """In a new folder, in one that holds a smaller corpus of ours, and in one where we were interrupted."""
    mine = json.dumps({"audio_filepath": "a.wav", "duration": 1, "text": "mine"})
    for place in ("new", "made", "begun"):
        (tmp_path / place).mkdir()
        if place == "made":
            commands(tmp_path / place, train=2, dev=1, test=1, processes=1)
        if place == "begun":
            (tmp_path / place / "corpus.json").write_text('{"files": ["train.jsonl", "train/000001.flac"]}')
        path = tmp_path / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if place == "new" or not path.exists():
            path.write_text(mine)
            with pytest.raises(UserError, match=f"{path} already exists and was made elsewhere; choose another"):
                commands(tmp_path / place, train=3, dev=1, test=1, processes=1)
            assert path.read_text() == mine


def test_our_own_audio_is_ours_after_any_number_of_recipes(tmp_path):
    for train in (3, 1, 2):
        commands(tmp_path, train=train, dev=1, test=1, processes=1)
        assert len(read_manifest(tmp_path / "train.jsonl")) == train


def test_a_missing_wheel_says_what_to_install(tmp_path, monkeypatch):
    missing = "raise ModuleNotFoundError(\"No module named 'espeakng_loader'\")"
    (tmp_path / "espeakng_loader.py").write_text(missing)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"pip install 'qstudy\[speech\]'"):
        commands(tmp_path, train=1, dev=1, test=1, processes=1)


@pytest.mark.parametrize("voice", ["en-gb", "en-us+nobody", "en-mars"])
def test_unknown_voices_are_refused(voice):
    with Espeak(seed=0) as espeak, pytest.raises(UserError, match="has no voice"):
        espeak.say("hello", voice)


def test_every_voice_of_the_corpus_speaks():
    with Espeak(seed=0) as espeak:
        for variant in TRAIN_VARIANTS + TEST_VARIANTS:
            assert np.abs(espeak.say("hello", f"{ACCENTS[0]}+{variant}")).max() > 0.02
        for accent in ACCENTS:
            assert len(espeak.say("hello", accent)) > 0.2 * espeak.sample_rate


def test_speech_depends_on_the_seed_and_the_calls_before_alone():
    def say(seed: int, voice: str) -> bytes:
        with Espeak(seed) as espeak:
            espeak.say("before", "en+f2")
            return espeak.say("turn on the light", voice).tobytes()

    for voice in ("en-us+m3", "en-us+Reed"):  # Reed is a Klatt voice: other random numbers
        assert say(1, voice) == say(1, voice)
    assert say(1, "en-us+Reed") != say(2, "en-us+Reed")


def test_a_long_installation_path_works(tmp_path, monkeypatch):
    """espeak-ng's own buffer for the path ends at 160 bytes."""
    import espeakng_loader

    deep = tmp_path / ("x" * 100) / ("y" * 100) / "espeak-ng-data"
    deep.parent.mkdir(parents=True)
    deep.symlink_to(espeakng_loader.get_data_path())
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(deep))
    with Espeak(seed=0) as espeak:
        assert len(espeak.say("hello", "en-us+m3")) > 0
