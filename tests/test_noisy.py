"""Noisy copies of manifests: the ratio is what it says, the noise repeats, texts and speakers stay."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from checked import checked

from qstudy.cli import main
from qstudy.data.audio import read_native, write_flac
from qstudy.data.corpora import noise
from qstudy.data.corpora.digits import WORDS
from qstudy.data.corpora.noisy import noisy, speech_power
from qstudy.data.manifest import Utterance, read_manifest, write_manifest
from qstudy.errors import UserError

KINDS = ("white", "pink", "hum", "babble")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight tones with pauses at two sample rates, of two speakers; quiet enough that no mixture is turned down."""
    folder = tmp_path_factory.mktemp("clean")
    lines = []
    for number in range(8):
        rate = (8000, 16000)[number % 2]
        time = np.arange(rate) / rate
        samples = np.pad(0.02 * np.sin(2 * np.pi * (300 + 70 * number) * time), (rate // 2, number * rate // 10))
        write_flac(folder / f"{number}.flac", samples, rate)
        lines.append(
            Utterance(folder / f"{number}.flac", len(samples) / rate, f"tone {WORDS[number]}", "ab"[number // 4])
        )
    write_manifest(folder / "test.jsonl", lines)
    write_manifest(folder / "dev.jsonl", lines[:5])
    return folder / "test.jsonl"


def added(manifest: Path, copies: Path) -> list[np.ndarray]:
    """What each copy has that its original lacks."""
    pairs = zip(read_manifest(manifest), read_manifest(copies), strict=True)
    return [read_native(copy.audio)[0] - read_native(original.audio)[0] for original, copy in pairs]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("snr", [-5.0, 0.0, 10.0])
def test_the_ratio_is_that_of_the_speech_without_its_pauses(manifest: Path, tmp_path: Path, kind, snr: float) -> None:
    noisy([manifest], tmp_path, snr, [kind])
    for background in added(manifest, tmp_path / "test.jsonl"):
        assert 10 * np.log10(0.02**2 / 2 / noise.power(background)) == pytest.approx(snr, abs=0.1)


def test_what_is_said_and_by_whom_stays(manifest: Path, tmp_path: Path) -> None:
    noisy([manifest], tmp_path, 5)
    originals, copies = read_manifest(manifest), checked(tmp_path / "test.jsonl")
    for name in ("text", "speaker", "group", "duration"):
        assert [getattr(one, name) for one in copies] == [getattr(one, name) for one in originals]
    for one, copy in zip(originals, copies, strict=True):
        before, after = soundfile.info(one.audio), soundfile.info(copy.audio)
        assert (after.samplerate, after.frames, after.format) == (before.samplerate, before.frames, "FLAC")


def test_the_noise_of_an_utterance_is_the_same_at_every_ratio(manifest: Path, tmp_path: Path) -> None:
    for snr in (0, 10):
        noisy([manifest], tmp_path / str(snr), snr)
    loud, quiet = (added(manifest, tmp_path / name / "test.jsonl") for name in ("0", "10"))
    for one, other in zip(loud, quiet, strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.999
    noisy([manifest], tmp_path / "seed", 0, seed=1)
    again = added(manifest, tmp_path / "seed" / "test.jsonl")
    assert not any(np.array_equal(one, other) for one, other in zip(loud, again, strict=True))


def test_babble_is_of_other_speakers(tmp_path: Path) -> None:
    """Whoever hears a sound of one's own speaker finds more of its pitch in it than in white noise."""
    lines = []
    for number, (pitch, speaker) in enumerate([(400, "a"), (401, "a"), (1500, "b"), (1501, "b")]):
        write_flac(tmp_path / f"{number}.flac", 0.1 * np.sin(2 * np.pi * pitch * np.arange(8000) / 8000), 8000)
        lines.append(Utterance(tmp_path / f"{number}.flac", 1.0, "tone", speaker))
    write_manifest(tmp_path / "tones.jsonl", lines)
    noisy([tmp_path / "tones.jsonl"], tmp_path / "out", 0, ["babble"])
    for number, background in enumerate(added(tmp_path / "tones.jsonl", tmp_path / "out" / "tones.jsonl")):
        spectrum = np.abs(np.fft.rfft(background)) ** 2
        heard = spectrum[1450:1550] if number < 2 else spectrum[350:450]
        assert heard.sum() > 0.95 * spectrum.sum()


def test_loud_mixtures_are_turned_down_not_clipped(tmp_path: Path) -> None:
    samples = 0.9 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    write_flac(tmp_path / "a.flac", samples, 8000)
    write_manifest(tmp_path / "loud.jsonl", [Utterance(tmp_path / "a.flac", 1.0, "tone")])
    noisy([tmp_path / "loud.jsonl"], tmp_path / "out", 0, ["white"])
    mixed = read_native(tmp_path / "out" / "loud" / "000000.flac")[0]
    assert np.abs(mixed).max() == pytest.approx(0.99, abs=1e-3)
    gain = 2 * np.mean(mixed * samples) / 0.9**2
    assert 10 * np.log10(noise.power(gain * samples) / noise.power(mixed - gain * samples)) == pytest.approx(0, abs=0.3)


def test_speech_power_leaves_pauses_out() -> None:
    speech = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    with_pauses = np.concatenate([speech, np.zeros(8000), speech, 1e-3 * speech]).astype(np.float32)
    assert speech_power(with_pauses, 8000) == pytest.approx(speech_power(speech, 8000), rel=0.01)
    assert speech_power(speech, 8000) == pytest.approx(1, rel=0.05)
    assert speech_power(np.zeros(100, np.float32), 8000) == 0


def test_from_the_command_line_once(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = [str(manifest), str(manifest.with_name("dev.jsonl"))]
    command = ["data", "noisy", *both, "--snr", "0", "--kinds", "[pink, babble]", "--out", str(tmp_path)]
    main(command)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.flac")}
    sums = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in before}
    assert len(before) == 13
    assert json.loads((tmp_path / "corpus.json").read_text())["kinds"] == ["pink", "babble"]
    assert "dev.jsonl" in capsys.readouterr().out
    main(command)
    assert "already holds this corpus" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.flac")}
    main([*command[:2], str(manifest), *command[4:]])
    assert {path.name for path in tmp_path.glob("*.jsonl")} == {"test.jsonl"}
    again = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "test").iterdir()}
    assert again.items() <= sums.items()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"snr": 100}, "--snr"),
        ({"snr": float("nan")}, "--snr"),
        ({"kinds": []}, "--kinds: name some of white, pink, hum, babble"),
        ({"kinds": ["green"]}, "--kinds: name some of white"),
        ({"seed": -1}, "--seed"),
    ],
    ids=str,
)
def test_bad_options(manifest: Path, tmp_path: Path, options, said: str) -> None:
    with pytest.raises(UserError, match=said):
        noisy([manifest], tmp_path, **{"snr": 0, **options})
    assert not list(tmp_path.iterdir())


def test_bad_manifests(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--out: .* already exists"):
        noisy([manifest], manifest.parent, 0)
    with pytest.raises(UserError, match="another manifest has the name test"):
        noisy([manifest, manifest], tmp_path, 0)
    with pytest.raises(UserError, match=r"gone\.jsonl"):
        noisy([tmp_path / "gone.jsonl"], tmp_path, 0)
    alone = tmp_path / "alone.jsonl"
    write_manifest(alone, read_manifest(manifest)[:1])
    with pytest.raises(UserError, match=r"alone\.jsonl:1: babble is made of a manifest's other utterances"):
        noisy([alone], tmp_path / "out", 0, ["babble"])
    alone.write_text('{"audio_filepath": "gone.flac", "duration": 1, "text": "one"}\n')
    with pytest.raises(UserError, match=r"alone\.jsonl:1: The audio file .*gone\.flac does not exist"):
        noisy([alone], tmp_path / "out", 0, ["white"])
    assert not list(tmp_path.glob("out/*.jsonl"))
