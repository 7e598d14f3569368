"""The check before training, on real broken files: every problem is named by file and line, sound lines survive."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from qstudy.data.audio import write_flac
from qstudy.data.check import Problem, require_sound
from qstudy.data.feature_set import FeatureSet
from qstudy.data.features import FeatureSettings
from qstudy.data.tokenizer import CharTokenizer
from qstudy.errors import UserError

RATE = 16000


@pytest.fixture
def manifest(tmp_path):
    """Writes lines (dicts or raw strings) to a manifest beside some good and bad sound files."""
    sound = 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    write_flac(tmp_path / "good.flac", sound, RATE)
    soundfile.write(tmp_path / "stereo.wav", np.stack([sound, sound], 1), 2 * RATE)
    whole = (tmp_path / "good.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.wav").write_bytes((tmp_path / "stereo.wav").read_bytes()[:30000])
    (tmp_path / "text.flac").write_text("this is not sound")
    write_flac(tmp_path / "short.flac", sound[:800], RATE)
    write_flac(tmp_path / "silent.flac", 0 * sound, RATE)
    soundfile.write(tmp_path / "none.wav", sound[:0], RATE)

    def write(*lines):
        path = tmp_path / "train.jsonl"
        path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        return path

    return write


def line(audio="good.flac", duration=1.0, text="hello"):
    return {"audio_filepath": audio, "duration": duration, "text": text}


BROKEN = {
    "json": ('{"text": ', "not valid JSON"),
    "field": ({"audio_filepath": "good.flac", "duration": 1.0}, "the field text is missing"),
    "missing": (line("gone.flac"), "gone.flac does not exist"),
    "cut": (line("cut.flac"), "cut.flac cannot be decoded"),
    "cut wav": (line("cut.wav", 0.23), "cut.wav is cut short"),
    "not sound": (line("text.flac"), "text.flac cannot be decoded"),
    "no samples": (line("none.wav", 0), "none.wav holds no samples"),
    "short": (line("short.flac", 0.05), "short.flac is too short: 0.050 s"),
    "silent": (line("silent.flac"), "silent.flac is silent"),
    "duration": (line(duration=7.5), "duration says 7.5 s, but"),
    "empty text": (line(text=" "), "text is empty"),
    "alphabet": (line(text="hello 2 you"), "'2'"),
}


def opened(path, skip_broken=False):
    return FeatureSet.open(path, FeatureSettings(), CharTokenizer(), path.parent / "cache", skip_broken)


@pytest.mark.parametrize(("bad", "message"), BROKEN.values(), ids=BROKEN)
def test_every_kind_of_problem_has_file_and_line(manifest, bad, message, caplog):
    path = manifest(line(text="one"), bad, line("stereo.wav", 0.5, "two"))
    with pytest.raises(UserError) as error:
        opened(path)
    assert "1 of its lines cannot be used" in str(error.value)
    complaint = str(error.value).splitlines()[1]
    assert complaint.startswith(f"  {path}:2: ")
    assert message in complaint
    assert complaint.count(f"{path}:") == 1
    assert list(opened(path, skip_broken=True).texts) == ["one", "two"]
    assert f"Left out: {complaint.strip()}" in caplog.text


def test_what_needs_no_audio_is_told_first_and_all_in_order(manifest):
    """A long manifest is read for hours: nobody should wait so long for a typo."""
    path = manifest(*(bad for bad, _ in BROKEN.values()), line())
    with pytest.raises(UserError) as error:
        opened(path)
    quick = [1, 2, 3, 11, 12]
    assert [int(text.split(":")[1]) for text in str(error.value).splitlines()[1:]] == quick
    assert not list((path.parent / "cache").glob(".*"))  # no audio was read
    path = manifest(*(bad for number, (bad, _) in enumerate(BROKEN.values(), 1) if number not in quick), line())
    with pytest.raises(UserError) as error:
        opened(path)
    assert [int(text.split(":")[1]) for text in str(error.value).splitlines()[1:]] == [1, 2, 3, 4, 5, 6, 7]


def test_few_problems_are_shown():
    path = Path("train.jsonl")
    with pytest.raises(UserError) as error:
        require_sound(path, [Problem(number, "is bad") for number in range(1, 12)], shown=3)
    assert str(error.value).count("\n  ") == 4
    assert "11 of its lines" in str(error.value)
    assert "and 8 more" in str(error.value)
    require_sound(path, [])


def test_an_empty_manifest_is_an_error(manifest):
    with pytest.raises(UserError, match="is empty"):
        opened(manifest())
