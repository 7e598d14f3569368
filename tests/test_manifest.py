"""Manifests: what is written is read back, and every malformed line is named."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from qstudy.data.manifest import Utterance, groups_of, identity, manifest_lines, read_manifest, stamps, write_manifest
from qstudy.errors import UserError

SHARED = Path(__file__).parents[2] / "shared"
GOOD = {"audio_filepath": "a.flac", "duration": 1.5, "text": "hello"}


def test_round_trip(tmp_path):
    audio = tmp_path / "elsewhere" / "a.wav"
    utterances = [
        Utterance(audio, 1.25, "turn on the light", "anna"),
        Utterance(tmp_path / "manifests" / "train" / "b.flac", 0.5, "café o'clock"),
    ]
    path = tmp_path / "manifests" / "train.jsonl"
    write_manifest(path, utterances)
    assert [json.loads(line)["audio_filepath"] for line in path.read_text().splitlines()] == [
        "../elsewhere/a.wav",
        "train/b.flac",
    ]
    back = read_manifest(path)
    assert [(u.audio.resolve(), u.duration, u.text, u.speaker) for u in back] == [
        (u.audio, u.duration, u.text, u.speaker) for u in utterances
    ]
    assert [u.source for u in back] == [f"{path}:1", f"{path}:2"]


def test_groups_are_those_named_else_speakers(tmp_path):
    path = tmp_path / "m.jsonl"

    def groups(*names, lines=None):
        sound = tmp_path / "a.wav"
        write_manifest(path, [Utterance(sound, 1.0, "one", speaker, group=group) for speaker, group in names])
        return groups_of(path, lines or range(1, len(names) + 1))

    assert groups(("anna", None), ("bob", None), ("anna", None)) == [0, 1, 0]
    assert groups(("anna", "x"), ("bob", "y"), ("carl", "x"), (None, "y"), ("y", None)) == [0, 1, 0, 1, 1]
    assert groups(("anna", None), ("bob", None), ("bob", None), lines=[2, 3]) == [0, 0]
    assert groups(("anna", None), ("bob", None)) is None  # nothing is shared
    assert groups(("anna", None), (None, None), ("anna", None)) is None
    assert groups((None, "x"), (None, "x")) == [0, 0]
    with pytest.raises(UserError, match="no longer has an utterance in line 4"):
        groups(("anna", None), ("anna", None), lines=[1, 4])


def test_paths_survive_a_linked_folder(tmp_path):
    """`..` from a manifest in a linked folder starts at the real folder."""
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    (tmp_path / "a.wav").write_bytes(b"")
    write_manifest(tmp_path / "link" / "m.jsonl", [Utterance(tmp_path / "a.wav", 1.0, "one")])
    assert read_manifest(tmp_path / "link" / "m.jsonl")[0].audio.is_file()


def test_audio_below_a_linked_folder_is_named_from_the_manifest(tmp_path):
    (tmp_path / "real" / "train").mkdir(parents=True)
    (tmp_path / "real" / "train" / "a.wav").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_manifest(tmp_path / "link" / "m.jsonl", [Utterance(tmp_path / "link" / "train" / "a.wav", 1.0, "one")])
    assert '"train/a.wav"' in (tmp_path / "real" / "m.jsonl").read_text()


def test_text_is_lower_case_words_and_lines_may_come_from_windows(tmp_path):
    path = tmp_path / "m.jsonl"
    line = json.dumps({"audio_filepath": "/x/a.wav", "duration": 2, "text": "  HELLO\tWorld ", "lang": "en"})
    path.write_bytes(b"\xef\xbb\xbf" + f"{line}\r\n\r\n{line}\r\n".encode())
    first, second = read_manifest(path)
    assert (first.audio, first.text, first.duration, first.speaker) == (Path("/x/a.wav"), "hello world", 2.0, None)
    assert second.source == f"{path}:3"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"audio_filepath": "a.flac"', "not valid JSON"),
        ("[1, 2]", "must be a JSON object"),
        (json.dumps({**GOOD, "audio_filepath": 3}), "audio_filepath must be a string, not 3"),
        (json.dumps({**GOOD, "audio_filepath": ""}), "audio_filepath is empty"),
        (json.dumps({**GOOD, "duration": "long"}), 'duration must be a number of seconds, 0 to 86400, not "long"'),
        (json.dumps({**GOOD, "duration": float("nan")}), "NaN is not a finite number"),
        (json.dumps({**GOOD, "duration": -1}), "duration must be a number"),
        (json.dumps({**GOOD, "duration": True}), "duration must be a number"),
        (json.dumps({**GOOD, "duration": 1e5}), "duration must be a number"),
        (json.dumps({**GOOD, "duration": 10**400}), "has more than"),
        (json.dumps({**GOOD, "duration": 10**15}), "duration must be a number"),
        (json.dumps({**GOOD, "text": "a" * 10_001}), "text has 10001 characters"),
        (json.dumps({**GOOD, "text": "a\x1b[2J"}), "text holds the control character '\\x1b'"),
        (json.dumps({**GOOD, "text": "half \ud800"}), "not UTF-8"),
        (json.dumps({**GOOD, "text": list(range(99999))}), "..."),
        (json.dumps({**GOOD, "audio_filepath": "a\0.wav"}), "audio_filepath holds the control character"),
        (json.dumps({**GOOD, "speaker": ["anna"]}), "speaker must be a name"),
        (json.dumps({**GOOD, "group": 1.5}), "group must be a name"),
        ('{"text": "one", "text": "two"}', "the key 'text' occurs twice"),
        ("[" * 100_000, "nested"),
        ('{"duration": ' + 5000 * "9" + "}", "not valid JSON"),
        (json.dumps({**GOOD, "text": None}), "text must be a string, not null"),
        (json.dumps({**GOOD, "offset": 3.5}), "offset: parts of files are not supported"),
        *((json.dumps({k: v for k, v in GOOD.items() if k != key}), f"the field {key} is missing") for key in GOOD),
    ],
    ids=lambda value: value[:40],
)
def test_malformed_lines_are_named(tmp_path, line, message):
    path = tmp_path / "train.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n")
    with pytest.raises(UserError) as error:
        read_manifest(path)
    assert str(error.value).startswith(f"{path}:2: ")
    assert message in str(error.value)
    assert len(str(error.value)) < 400


def test_missing_empty_and_binary_manifests(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.jsonl: No such file"):
        read_manifest(tmp_path / "nothing.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(UserError, match=r"empty\.jsonl is empty"):
        read_manifest(tmp_path / "empty.jsonl")
    (tmp_path / "sound.jsonl").write_bytes(b"RIFF\xff\xfe\x00")
    with pytest.raises(UserError, match=r"sound\.jsonl is not UTF-8"):
        read_manifest(tmp_path / "sound.jsonl")


def test_stamps_tell_size_and_time_of_what_is_there(tmp_path):
    (tmp_path / "a.wav").write_bytes(bytes(123))
    os.utime(tmp_path / "a.wav", ns=(5, 7_000_000_011))
    texts = [json.dumps({"audio_filepath": name}) for name in ("a.wav", str(tmp_path / "a.wav"), "b.wav", 3, "\0")]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join([*texts, "[1]", "{", "{}"]))
    found = stamps(path, manifest_lines(path))
    assert found.tolist() == [[123, 7_000_000_011]] * 2 + [[-1, -1]] * 6


def test_the_identity_of_a_manifest_is_what_it_holds(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.flac").write_bytes(bytes(123))
        (tmp_path / folder / "m.jsonl").write_text(json.dumps(GOOD))
    first = identity(tmp_path / "a" / "m.jsonl")
    assert identity(tmp_path / "b" / "m.jsonl") == first
    (tmp_path / "b" / "a.flac").write_bytes(bytes(124))
    assert identity(tmp_path / "b" / "m.jsonl") != first
    (tmp_path / "a" / "m.jsonl").write_text(json.dumps({**GOOD, "text": "hallo"}))
    assert identity(tmp_path / "a" / "m.jsonl") != first


def test_the_identity_of_flac_files_stays_what_it_was(tmp_path):
    """Records and caches of corpora that are there are known by it."""
    (tmp_path / "a.flac").write_bytes(bytes(123))
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps({**GOOD, "audio_filepath": n}) for n in ("a.flac", "b.wav")))
    assert identity(tmp_path / "m.jsonl") == "58b27c6a688fb02c"


@pytest.mark.parametrize("name", ["a.wav", "a.aiff"])
def test_other_sounds_of_one_size_are_told_apart(tmp_path, name):
    """Noise under the same speech leaves the size of a WAV file as it is."""
    generator, found = np.random.default_rng(0), []
    for folder in ("clean", "noisy", "copy"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.jsonl").write_text(json.dumps({**GOOD, "audio_filepath": name}))
        samples = np.sin(np.arange(16000)) * 0.3
        if folder == "noisy":
            samples += generator.normal(0, 0.05, 16000)
        soundfile.write(tmp_path / folder / name, samples, 16000)
        found.append(identity(tmp_path / folder / "m.jsonl"))
    assert found[0] == found[2] != found[1]


def test_a_sound_that_is_no_file_has_an_identity(tmp_path):
    """The check says what is wrong with it; nothing waits for a pipe."""
    os.mkfifo(tmp_path / "pipe.wav")
    lines = [json.dumps({**GOOD, "audio_filepath": name}) for name in ("pipe.wav", ".", "gone.wav")]
    (tmp_path / "m.jsonl").write_text("\n".join([*lines, "[1]", "{"]))
    assert identity(tmp_path / "m.jsonl")


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
def test_foreign_manifests_are_read_as_they_are():
    utterances = read_manifest(SHARED / "data" / "digits" / "test.jsonl")
    assert len(utterances) == 300
    assert all(item.audio.is_file() and item.text and item.duration > 1 for item in utterances)
