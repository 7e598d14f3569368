"""`qstudy branches`: the picture and the words about an amortized encoder's choices."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny import LSTM, filled, packed, talkative

from qstudy.cli import main
from qstudy.model import ModelConfig

POLICY = {"name": "native_int", "layers": {"*": {"weight": 8, "activation": 8}}}
ENCODER = {"name": "amortized", "hidden": 16, "layers": 2, "stack": 2, "reduction": 2, "rank": 4}


def model_file(folder: Path, encoder: dict[str, object]) -> Path:
    """A packed model at the end of its training."""
    config = ModelConfig(dict(encoder), dict(LSTM), {"hidden": 12})
    model = talkative(config)
    if branching := model.encoder.branching:
        branching.begin_step(1.0)
    packed(model, filled(model, POLICY), config).save(folder / "model.qst")
    return folder / "model.qst"


def sound_file(folder: Path, name: str, seconds: float = 1.0) -> Path:
    """Half a second of noise in silence."""
    samples = np.random.default_rng(0).normal(0, 0.1, int(16000 * seconds))
    samples[: len(samples) // 2] *= 1e-4
    soundfile.write(folder / name, samples, 16000)
    return folder / name


CASCADED = {"name": "cascaded", "first": ENCODER, "second": {"blocks": 1, "heads": 2, "kernel": 5, "left": 6}}


@pytest.mark.parametrize(
    ("encoder", "ending"),
    [(ENCODER, "png"), (ENCODER, "pdf"), (ENCODER, "svg"), (CASCADED, "png")],
    ids=["png", "pdf", "svg", "cascaded"],
)
def test_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], encoder: dict[str, object], ending: str
) -> None:
    model, out = model_file(tmp_path, encoder), tmp_path / "deep" / f"choices.{ending}"
    sounds = [str(sound_file(tmp_path, f"{index}.wav", 1 + index)) for index in range(2)]
    main(["branches", str(model), *sounds, "--out", str(out)])
    said = capsys.readouterr().out.splitlines()
    frames = {line.partition(":")[0]: int(line.split()[1]) for line in said[:2]}
    assert sum(frames.values()) == 2 * (128 // 4 + 228 // 4)  # of 20 ms, with 300 ms of silence behind every sound
    assert frames["silence"] > frames["speech"] > 0
    assert "edge_nna: median latency" in said[2]
    assert out.stat().st_size > 1000


def test_a_picture_of_another_kind_is_refused_first(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["branches", "gone.qst", "gone.wav", "--out", str(tmp_path / "branches.txt")])
    assert stopped.value.code == 2
    assert "branches.txt must end in .png, .svg, .pdf" in capfd.readouterr().err


def test_an_encoder_without_branches(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lstm = {"name": "lstm", "hidden": 16, "layers": 1, "stack": 2, "reduction": 2}
    model, sound = model_file(tmp_path, lstm), sound_file(tmp_path, "a.wav")
    with pytest.raises(SystemExit) as stopped:
        main(["branches", str(model), str(sound), "--out", str(tmp_path / "a.png")])
    assert stopped.value.code == 2
    assert "has no branches" in capfd.readouterr().err
    assert not (tmp_path / "a.png").exists()
