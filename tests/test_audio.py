"""Reading, writing and resampling of sound files."""

import numpy as np
import pytest
import soundfile
import torch
import torchaudio.functional

from qstudy.data import audio
from qstudy.data.audio import duration, read_audio, resample, write_flac
from qstudy.data.container import mp3_samples
from qstudy.errors import UserError


def tone(hertz: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


@pytest.mark.parametrize(
    ("source", "target"), [(8000, 16000), (22050, 16000), (48000, 16000), (44100, 16000), (16000, 8000)]
)
@pytest.mark.parametrize("hertz", [100, 1000, 3300])
def test_resampled_tones_are_the_tones_at_the_other_rate(source, target, hertz):
    found, wanted = resample(tone(hertz, source), source, target), tone(hertz, target)
    assert found.dtype == np.float32
    assert abs(len(found) - len(wanted)) <= 1
    inner = slice(target // 50, -target // 50)  # a tone that starts suddenly has no band limit: leave out 20 ms
    np.testing.assert_allclose(found[: len(wanted)][inner], wanted[inner], atol=2e-3)


def test_what_the_target_cannot_hold_is_removed():
    assert np.abs(resample(tone(7000, 16000), 16000, 8000)[200:-200]).max() < 1e-3


@pytest.mark.parametrize(("source", "target"), [(8000, 16000), (22050, 16000)])
def test_agrees_with_torchaudio_on_noise_below_its_cutoff(source, target):
    """Random sound, band-limited to 0.8 of the band, against torchaudio with a long filter."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(source))
    spectrum[int(0.8 * min(source, target) / 2) :] = 0
    sound = (0.1 * np.fft.irfft(spectrum, source)).astype(np.float32)
    peer = torchaudio.functional.resample(torch.from_numpy(sound), source, target, lowpass_filter_width=128).numpy()
    ours = resample(sound, source, target)
    assert len(ours) == len(peer)
    np.testing.assert_allclose(ours[800:-800], peer[800:-800], atol=2e-4)


def test_channels_are_averaged_and_the_rate_changed(tmp_path):
    left, right = tone(500, 44100), tone(900, 44100)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), 44100, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "stereo.wav", 44100), (left + right) / 2, atol=1e-6)
    assert len(read_audio(tmp_path / "stereo.wav")) == 8000
    assert duration(tmp_path / "stereo.wav") == pytest.approx(0.5)


def test_flac_round_trip_and_clipping(tmp_path):
    samples = np.array([0, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0] * 100, np.float32)
    write_flac(tmp_path / "deep" / "a.flac", samples, 8000)
    np.testing.assert_allclose(read_audio(tmp_path / "deep" / "a.flac", 8000), np.clip(samples, -1, 1), atol=1 / 32000)


def test_broken_files_are_named(tmp_path):
    write_flac(tmp_path / "good.flac", tone(300, 16000), 16000)
    (tmp_path / "text.wav").write_text("hello")
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    for name, value in (("nan", np.nan), ("infinite", -np.inf), ("loud", 32767.0)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(100, value), 16000, subtype="FLOAT")
    for rate in (10, 1_000_000):
        soundfile.write(tmp_path / f"rate{rate}.wav", np.zeros(100), rate)
    soundfile.write(tmp_path / "old.au", np.zeros(100), 16000)
    (tmp_path / "folder.wav").mkdir()
    reasons = {
        "missing.wav": "does not exist",
        "folder.wav": "does not exist",
        f"{'long' * 99}.wav": "does not exist",
        "text.wav": "cannot be decoded",
        "empty.wav": "cannot be decoded",
        "none.wav": "holds no samples",
        "nan.wav": "holds values that are not numbers",
        "infinite.wav": "holds values that are not numbers",
        "loud.wav": "holds values up to 32767",
        "rate10.wav": "has a sample rate of 10 Hz",
        "rate1000000.wav": "has a sample rate of 1000000 Hz",
        "old.au": "is AU, which is not supported",
    }
    for name, reason in reasons.items():
        with pytest.raises(UserError, match=f"{name} {reason}"):
            read_audio(tmp_path / name)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("wav", {}),
        ("wav", {"subtype": "FLOAT"}),
        ("wav", {"endian": "BIG"}),
        ("wav", {"format": "RF64"}),
        ("aiff", {}),
        ("flac", {}),
        ("ogg", {}),
        ("ogg", {"subtype": "OPUS"}),
    ],
    ids=str,
)
def test_a_file_without_its_end_is_refused(tmp_path, suffix, options):
    noise = 0.1 * np.random.default_rng(0).standard_normal(48000)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise, 16000, **options)
    assert len(read_audio(path)) == 48000
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UserError, match=rf"a\.{suffix} (is cut short|cannot be decoded)"):
            read_audio(path)


@pytest.mark.parametrize("size", [0x7FFFF000, 0x80000000, 0xFFFFFFFF], ids=["sox", "arecord", "ffmpeg"])
def test_a_wav_from_a_pipe_lasts_until_its_end(tmp_path, size):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(300, 16000), 16000)
    whole = path.read_bytes()
    at = whole.index(b"data") + 4
    path.write_bytes(whole[:at] + size.to_bytes(4, "little") + whole[at + 4 :])
    assert len(read_audio(path)) == 8000
    path.write_bytes(whole[:at] + bytes(4) + whole[at + 4 :])  # the recorder was killed
    with pytest.raises(UserError, match="cut short"):
        duration(path)


def without_length(path, samples, rate, mode):
    """Write an MP3 file without its first frame, which says how long it is; returns how many samples it holds."""
    soundfile.write(path, samples, rate, bitrate_mode=mode, compression_level=0.5)
    whole = path.read_bytes()
    second = whole.index(whole[:2], 4)
    path.write_bytes(whole[second:])
    return mp3_samples(path)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_an_mp3_of_constant_bit_rate_needs_no_length(tmp_path, rate):
    path, noise = tmp_path / "a.mp3", 0.1 * np.random.default_rng(0).standard_normal(3 * rate)
    count = without_length(path, noise, rate, "CONSTANT")
    assert len(read_audio(path, rate)) == count
    assert 3 * rate < count < 3 * rate + 4 * 1152
    assert duration(path) == count / rate
    content = path.read_bytes()
    tag = b"TAG" + b"\xff\xfb" * 60 + bytes(5)
    path.write_bytes(b"ID3\4\0\0\0\0\1\x7f" + b"\xff\xf3\x88\xc4" * 63 + bytes(3) + content + tag)
    assert len(read_audio(path, rate)) == count


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_no_part_of_an_mp3_whose_length_nobody_knows_is_lost(tmp_path, rate):
    """Where libsndfile guesses too many samples all are read; where it guesses too few, it would read no more."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(10 * rate) * np.linspace(1e-3, 1, 10 * rate) ** 4
    path = tmp_path / "a.mp3"
    soundfile.write(path, noise, rate, bitrate_mode="VARIABLE")
    assert mp3_samples(path) is None
    assert len(read_audio(path, rate)) == len(noise)
    count = without_length(path, noise, rate, "VARIABLE")
    assert len(read_audio(path, rate)) == count
    without_length(path, noise[::-1], rate, "VARIABLE")
    for read in (read_audio, duration):
        with pytest.raises(UserError, match=r"a\.mp3 does not say how long it is .*; convert it to a WAV or FLAC file"):
            read(path)


def test_a_flac_from_a_pipe_is_to_be_converted(tmp_path):
    """It counts no samples in its header."""
    path = tmp_path / "a.flac"
    write_flac(path, tone(300, 16000), 16000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.flac does not say how long it is .*; convert it to a WAV or FLAC file"):
        read_audio(path)


def test_what_resampling_would_make_of_a_file_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "LONGEST", 40_000)
    soundfile.write(tmp_path / "slow.wav", np.zeros(3000, np.float32), 1000)
    with pytest.raises(UserError, match="too long"):
        read_audio(tmp_path / "slow.wav", 16000)


def test_what_a_header_promises_is_not_allocated(tmp_path):
    """36 bits of a FLAC's header count its samples."""
    path = tmp_path / "a.flac"
    write_flac(path, tone(300, 16000), 16000)
    content = bytearray(path.read_bytes())
    content[21:26] = b"\xff" * 5
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.flac is too long; cut it"):
        read_audio(path)
    soundfile.write(tmp_path / "many.wav", np.zeros((100, 1000)), 16000, subtype="PCM_U8")
    assert len(read_audio(tmp_path / "many.wav")) == 100
